"""What a model takes by its shape is what it takes in memory; built-in shapes are those of the published
models."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helios_contract.serves import PRECISIONS, Precision
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.described import described
from helios_server.models.known import KNOWN
from helios_server.models.shapes import shape_of
from helios_server.models.smollm2 import ensure_smollm2
from helios_server.planning.memory import capacity
from helios_server.planning.shape import facts_of

from tests.checkpoints import make_checkpoint
from tests.models.test_published import publish

PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "OPT-1.3B": 1_315_758_080 - 2 * 2048,  # two rows of positions before the first token's are not held
    "OPT-6.7B": 6_658_473_984 - 2 * 4096,
    "Llama-2-7B": 6_738_415_616,
    "Llama-2-70B": 68_976_648_192,
    "Llama-3-8B": 8_030_261_248,
    "Qwen2.5-32B": 32_763_876_352,
    "CodeLlama-34B": 33_743_970_304,
}
"""Parameters, as transformers counts them of the published checkpoints."""


def parameters(name: str) -> int:
    config = described(name)
    shape = shape_of(config)
    layer = sum(m * n for m, n in shape.matrices) + shape.layer_wide
    rotary = config.max_context * config.head_dim * len(config.ropes)
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    return shape.num_layers * layer + tables + shape.positions + shape.fixed_wide - rotary


def test_built_in_shapes_have_the_parameters_of_the_published_models() -> None:
    assert {name: parameters(name) for name in KNOWN} == PUBLISHED


@pytest.mark.parametrize(
    ("name", "gigabytes", "layers", "gain"),
    [
        ("Llama-2-70B", 4 * 42.3, 22, 15.2),  # the paper's largest batch: 15.14x
        ("OPT-1.3B", 36, 6, 4.2),
        ("OPT-6.7B", 36, 9, 5.0),
        ("OPT-6.7B", 18, 9, 10.6),
        ("Llama-2-7B", 36, 8, 5.7),
        ("Llama-3-8B", 36, 16, 2.7),
    ],
)
def test_what_a_layer_budget_gains_is_arithmetic(
    name: str, gigabytes: float, layers: int, gain: float
) -> None:
    shape = shape_of(described(name))
    shallow, full = (
        capacity(
            facts_of(shape, Precision()),
            limit_bytes=round(gigabytes * 1e9),
            layers=depth,
            tokens_per_request=640,
        ).tokens
        for depth in (layers, shape.num_layers)
    )
    assert round(shallow / full, 1) == gain


def test_it_is_known_without_torch() -> None:
    """Nobody waits for torch to hear that a model does not fit."""
    code = (
        "import sys; from helios_server.models import described, shapes; "
        "shapes.shape_of(described.described('Llama-2-7B')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_loaded_model_takes_what_its_shape_says(tmp_path: Path, family: str, tied: bool) -> None:
    """Its sizes fill the kernels' panels: nothing is padded but each packed matrix, to a whole page."""
    model = make_checkpoint(tmp_path / "model", family, tied=tied)
    for precision in PRECISIONS:
        assert_as_loaded(model, precision)


def test_a_checkpoint_published_in_int8_takes_what_its_shape_says(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "floats", dtype=torch.float32, tied=False)
    model = publish(source, tmp_path / "published", "pack-quantized")
    for precision in (Precision("auto", "int8"), Precision("int8", "auto"), Precision("int4", "auto")):
        assert_as_loaded(model, precision)


def test_smollm2_takes_what_its_shape_says() -> None:
    for precision in PRECISIONS:
        assert_as_loaded(ensure_smollm2(), precision)


PACKED_IN_A_LAYER = 4
"""Matrices: queries with keys and values, attention's output, gate with up, down."""


def assert_as_loaded(model: Path, precision: Precision) -> None:
    checkpoint = Checkpoint.open(model)
    backbone = Backbone.load(checkpoint, 1, dtype="float16", precision=precision)
    assert backbone.is_native
    facts = facts_of(shape_of(checkpoint.config), precision)
    assert 0 <= backbone.layer_bytes - facts.layer_bytes < PACKED_IN_A_LAYER * mmap.PAGESIZE
    assert 0 <= backbone.fixed_bytes - facts.fixed_bytes < mmap.PAGESIZE
    assert facts.page_tokens * facts.kv_bytes_per_token_layer == backbone.layout.page_bytes
