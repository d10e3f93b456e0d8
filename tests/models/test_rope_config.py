"""The rotary embedding in all spellings of config.json: as transformers has it, or refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.errors import UnsupportedModelError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from transformers import AutoModelForCausalLM

from tests.checkpoints import make_checkpoint
from tests.models.changes import change_config
from tests.models.test_layout import ours, theirs

LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 5e5}
NESTED = {"full_attention": DEFAULT}

SPELLINGS: list[dict[str, Any]] = [
    {"rope_parameters": DEFAULT},
    {"rope_parameters": DEFAULT, "rope_scaling": None},
    {"rope_parameters": DEFAULT, "rope_scaling": {}},
    {"rope_parameters": DEFAULT, "rope_scaling": LINEAR},
    {"rope_parameters": LINEAR | {"rope_theta": 1e5}, "rope_scaling": {"type": "default"}},
    {"rope_parameters": LINEAR, "rope_theta": 2e4},
    {"rope_parameters": LINEAR | {"rope_theta": 1e5}, "rope_theta": 2e4},
    {"rope_scaling": {"type": "linear", "factor": 2}},
    {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}},
    {"rope_scaling": LINEAR | {"factor": 0.5}},
    {"rope_scaling": LLAMA3},
    {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 128}},
    {
        "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 128},
        "original_max_position_embeddings": 64,
    },
    {"rope_parameters": LLAMA3 | {"rope_theta": 5e5, "original_max_position_embeddings": 64}},
    {"rope_theta": 1},
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("rope_theta", {"rope_theta": "10000"}),
    ("rope_theta", {"rope_theta": -1.0}),
    ("rope_theta", {"rope_theta": 0}),
    ("rope_theta", {"rope_theta": True}),
    ("rope_theta", {"rope_theta": None}),
    ("rope_theta", {"rope_theta": math.nan}),
    ("rope_theta", {"rope_theta": math.inf}),
    ("rope_theta", {"rope_theta": [1e4]}),
    ("rope_parameters.rope_theta", {"rope_parameters": DEFAULT | {"rope_theta": "5e5"}}),
    ("rope_parameters.rope_theta", {"rope_parameters": DEFAULT | {"rope_theta": None}}),
    ("rope_scaling.factor", {"rope_scaling": {"type": "linear"}}),
    ("rope_scaling.factor", {"rope_scaling": LINEAR | {"factor": None}}),
    ("rope_scaling.factor", {"rope_scaling": LINEAR | {"factor": "4"}}),
    ("rope_scaling.factor", {"rope_scaling": LINEAR | {"factor": 0}}),
    ("rope_scaling.factor", {"rope_scaling": LINEAR | {"factor": -2.0}}),
    ("rope_scaling.factor", {"rope_scaling": LINEAR | {"factor": math.nan}}),
    ("rope_scaling.factor", {"rope_scaling": LLAMA3 | {"factor": math.inf}}),
    ("rope_scaling.low_freq_factor", {"rope_scaling": LLAMA3 | {"low_freq_factor": None}}),
    ("rope_scaling.high_freq_factor", {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}),
    (
        "original_max_position_embeddings",
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 0.5}},
    ),
    ("rope_scaling", {"rope_scaling": "linear"}),
    ("rope_scaling", {"rope_scaling": [4.0]}),
    ("rope_parameters", {"rope_parameters": 3}),
    ("rope_parameters", {"rope_parameters": "default", "rope_scaling": LINEAR}),
    ("rope_parameters.full_attention", {"rope_parameters": NESTED}),
    ("rope_parameters.full_attention", {"rope_parameters": NESTED, "layer_types": ["full_attention"] * 3}),
    ("rope_parameters.sliding_attention", {"rope_parameters": {"sliding_attention": LINEAR, **NESTED}}),
    ("rope_scaling.rope_type", {"rope_scaling": LINEAR | {"rope_type": None}}),
    ("rope_scaling.rope_type", {"rope_scaling": LINEAR | {"rope_type": ["linear"]}}),
    ("partial_rotary_factor", {"partial_rotary_factor": 0.5}),
    ("partial_rotary_factor", {"rope_parameters": DEFAULT | {"partial_rotary_factor": 0.25}}),
    ("partial_rotary_factor", {"rope_parameters": DEFAULT | {"partial_rotary_factor": "1"}}),
]
KINDS = ["yarn", "longrope", "dynamic", "su", "ntk", "proportional", "mrope", "Linear", ""]


@pytest.mark.parametrize("fields", SPELLINGS)
def test_as_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    change_config(make_checkpoint(tmp_path, layers=3), **fields)
    assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8


@pytest.mark.parametrize("fields", [{}, {"rope_scaling": LINEAR}, {"rope_parameters": LINEAR}])
def test_without_a_theta_as_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    change_config(make_checkpoint(tmp_path, "qwen3", layers=3), drop=("rope_theta",), **fields)
    assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8


@pytest.mark.parametrize(("field", "fields"), REFUSED)
def test_refused_by_name(tmp_path: Path, field: str, fields: dict[str, Any]) -> None:
    change_config(make_checkpoint(tmp_path, layers=3), **fields)
    with pytest.raises(UnsupportedModelError) as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.field == field


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("key", ["rope_type", "type"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_are_not_built_wherever_they_stand(
    tmp_path: Path, spelling: str, key: str, kind: str
) -> None:
    make_checkpoint(tmp_path, layers=3)
    other = "rope_parameters" if spelling == "rope_scaling" else "rope_scaling"
    for beside in ({}, {other: LINEAR}):
        change_config(tmp_path, drop=(other,))
        change_config(tmp_path, **{spelling: {key: kind, "factor": 4.0}, **beside})
        with pytest.raises(UnsupportedModelError, match=f'"{kind}" is not supported') as caught:
            Checkpoint.open(tmp_path)
        assert caught.value.field == f"{spelling}.{key}"


def test_linear_rope_may_raise_the_context_as_far_as_its_factor(tmp_path: Path) -> None:
    """transformers has no end at max_position_embeddings, and neither file says that the factor is in it."""
    change_config(make_checkpoint(tmp_path, layers=1), rope_scaling=LINEAR, max_position_embeddings=64)
    checkpoint = Checkpoint.open(tmp_path)
    assert (checkpoint.config.max_context, checkpoint.config.longest_context) == (64, 256)
    with pytest.raises(IndexError):
        Backbone.load(checkpoint, 1, dtype="float64").rope(torch.tensor([64]))
    raised = Backbone.load(checkpoint, 1, dtype="float64", max_context=200)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    cos, sin = oracle.model.rotary_emb(torch.empty(0, dtype=torch.float64), torch.tensor([[199]]))
    assert torch.equal(raised.rope(torch.tensor([199]))[0], cos[0])
    assert torch.equal(raised.rope(torch.tensor([199]))[1], sin[0])
    with pytest.raises(IndexError):
        Backbone.load(checkpoint, 1, dtype="float64", max_context=1000).rope(torch.tensor([256]))


@pytest.mark.parametrize("fields", [{}, {"rope_scaling": LLAMA3}, {"rope_scaling": LINEAR | {"factor": 0.5}}])
def test_nothing_else_raises_it(tmp_path: Path, fields: dict[str, Any]) -> None:
    config = Checkpoint.open(make_checkpoint(tmp_path, layers=1, **fields)).config
    assert config.longest_context == config.max_context == 512


def test_a_sliding_window_bounds_linear_rope_too(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "mistral", layers=1, rope_scaling=LINEAR, sliding_window=600)
    config = Checkpoint.open(tmp_path).config
    assert (config.max_context, config.longest_context) == (512, 600)
