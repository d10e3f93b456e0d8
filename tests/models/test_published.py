"""Checkpoints that compressed-tensors wrote: read as they stand, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams
from helios_contract.serves import Precision
from helios_server.errors import CheckpointError, UnsupportedModelError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.prune import drop_layers
from helios_server.native.quantised import Quantised
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.checkpoints import VOCAB, make_checkpoint, write_tokenizer
from tests.engine.natives import computing_with
from tests.models.changes import change_config, change_tensors
from tests.models.test_oracle import run
from tests.native.libraries import names

FORMATS = ("pack-quantized", "int-quantized")
UP = "model.layers.0.mlp.up_proj.weight"


def publish(source: Path, target: Path, fmt: str, ignore: tuple[str, ...] = ("lm_head",)) -> Path:
    """Quantises a checkpoint as the package does, and writes it."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    weights = QuantizationArgs(num_bits=8, type="int", strategy="channel", symmetric=True, dynamic=False)
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=list(ignore)))
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            least, largest = module.weight.amin(1, keepdim=True), module.weight.amax(1, keepdim=True)
            module.weight_scale.data.copy_(calculate_qparams(least, largest, weights)[0])
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=fmt)
    compressor.compress_model(model)
    model.save_pretrained(target)
    compressor.update_config(target)
    write_tokenizer(target)
    return target


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By format: a model of qwen3's shape whose in_features no 4 divides, its head left as floats."""
    root = tmp_path_factory.mktemp("published")
    sizes: dict[str, Any] = {"hidden_size": 50, "intermediate_size": 101, "head_dim": 6}
    source = make_checkpoint(
        root / "floats", "qwen3", layers=3, dtype=torch.float32, tied=False, seed=1, **sizes
    )
    made = {fmt: publish(source, root / fmt, fmt) for fmt in FORMATS}
    return made.__getitem__


@pytest.fixture
def copied(published: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(published("pack-quantized"), tmp_path / "copied")


def sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(VOCAB, (length,), generator=generator) for length in (37, 5)]


@pytest.mark.parametrize("fmt", FORMATS)
def test_auto_is_the_checkpoints_own_format(published: Callable[[str], Path], fmt: str) -> None:
    """Against transformers on what the package itself makes of the file."""
    path = published(fmt)
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).double()
    backbone = Backbone.load(Checkpoint.open(path), 3, dtype="float64")
    for ours, sequence in zip(run(backbone, sequences(), 3), sequences(), strict=True):
        with torch.no_grad():
            theirs = oracle(sequence[None]).logits[0]
        assert (ours - theirs).abs().max() < 1e-5  # they round a weight to float32


@pytest.mark.parametrize("isa", names())
def test_its_values_are_taken_over(published: Callable[[str], Path], isa: str) -> None:
    both = {}
    for fmt in FORMATS:
        with computing_with(isa):
            both[fmt] = Backbone.load(Checkpoint.open(published(fmt)), 3, dtype="float16")
        assert both[fmt].is_native
    packed, plain = (run(backbone, sequences(), 3) for backbone in both.values())
    assert all(torch.equal(one, other) for one, other in zip(packed, plain, strict=True))
    exact = Backbone.load(Checkpoint.open(published(FORMATS[0])), 3, dtype="float64")
    for ours, theirs in zip(packed, run(exact, sequences(), 3), strict=True):
        assert (ours - theirs).abs().max() < 0.1


def test_its_values_are_the_files(published: Callable[[str], Path]) -> None:
    path = published("int-quantized")
    stored = load_file(path / "model.safetensors")
    held = Checkpoint.open(published("pack-quantized")).layer_tensors(0)["mlp.up_proj.weight"]
    assert isinstance(held, Quantised)
    assert held.shape == (101, 50)
    assert torch.equal(held.values, stored[UP])
    assert torch.equal(held.units, stored[f"{UP}_scale"])


def test_other_precisions_of_it(published: Callable[[str], Path]) -> None:
    """int8 takes its layers over and quantises its head; int4 is made of what int8 left."""
    checkpoint = Checkpoint.open(published("pack-quantized"))
    own, int8, int4 = (
        Backbone.load(checkpoint, 2, dtype="float16", precision=Precision(weights))
        for weights in ("auto", "int8", "int4")
    )
    assert own.layer_bytes == int8.layer_bytes > int4.layer_bytes
    assert own.head.nbytes > int8.head.nbytes > int4.head.nbytes
    assert Backbone.load(checkpoint, 2, dtype="float16", precision=Precision("auto", "int8")).is_native


def test_a_head_that_is_quantised_too(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "floats", layers=1, dtype=torch.float32, tied=False, seed=1)
    path = publish(source, tmp_path / "all", "pack-quantized", ignore=())
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).double()
    for precision in (Precision(), Precision("int8")):
        backbone = Backbone.load(Checkpoint.open(path), 1, dtype="float64", precision=precision)
        with torch.no_grad():
            theirs = oracle(sequences()[0][None]).logits[0]
        assert (run(backbone, sequences(), 1)[0] - theirs).abs().max() < 1e-5


def test_layers_that_are_left_out(published: Callable[[str], Path], tmp_path: Path) -> None:
    path = published("pack-quantized")
    pruned = Backbone.load(Checkpoint.open(drop_layers(path, tmp_path / "pruned", [2])), 2, dtype="float64")
    whole = Backbone.load(Checkpoint.open(path), 2, dtype="float64")
    assert torch.equal(run(pruned, sequences(), 2)[0], run(whole, sequences(), 2)[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quant_method", "gptq"),
        ("format", "marlin-24"),
        ("kv_cache_scheme", {"num_bits": 8}),
        ("sparsity_config", {"format": "sparse-24-bitmask"}),
        ("config_groups", {}),
        ("config_groups.group_0.input_activations", {"num_bits": 8}),
        ("config_groups.group_0.weights.num_bits", 4),
        ("config_groups.group_0.weights.type", "float"),
        ("config_groups.group_0.weights.strategy", "group"),
        ("config_groups.group_0.weights.symmetric", False),
        ("config_groups.group_0.weights.dynamic", True),
    ],
)
def test_what_is_another_format_is_named(copied: Path, field: str, value: object) -> None:
    config = json.loads((copied / "config.json").read_text())["quantization_config"]
    *path, last = field.split(".")
    at = config
    for key in path:
        at = at[key]
    at[last] = value
    if last == "format":
        del config["config_groups"]["group_0"]["format"]
    change_config(copied, quantization_config=config)
    with pytest.raises(UnsupportedModelError) as caught:
        Checkpoint.open(copied)
    assert caught.value.field == f"quantization_config.{field}"
    assert f"found {json.dumps(value)}" in caught.value.problem
    assert "before it was quantised" in caught.value.fix


def test_a_matrix_that_is_quantised_in_some_layers_only(copied: Path) -> None:
    parts = {f"{UP}_{part}": None for part in ("scale", "packed", "shape")}
    change_tensors(copied, {UP: torch.zeros(101, 50), **parts})
    with pytest.raises(UnsupportedModelError, match=r"quantization_config\.ignore: 'mlp\.up_proj\.weight'"):
        Checkpoint.open(copied)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({f"{UP}_packed": None}, f"tensor '{UP}_packed' is missing"),
        (
            {f"{UP}_packed": torch.zeros(101, 12, dtype=torch.int32)},
            r"is \[101, 12\], config.json says \[101, 13\]",
        ),
        ({f"{UP}_packed": torch.zeros(101, 13)}, "has dtype F32, expected one of I32"),
        ({f"{UP}_scale": torch.ones(101, 1, dtype=torch.int32)}, "has dtype I32, expected one of F64"),
        ({f"{UP}_scale": torch.ones(101)}, r"is \[101\], config.json says \[101, 1\]"),
        ({f"{UP}_zero_point": torch.zeros(101, 1)}, "is part of no layer"),
    ],
)
def test_a_part_that_is_not_as_promised(copied: Path, change: dict[str, Any], problem: str) -> None:
    change_tensors(copied, change)
    with pytest.raises(CheckpointError, match=problem):
        Checkpoint.open(copied)
