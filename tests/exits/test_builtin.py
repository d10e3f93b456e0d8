"""The bundles in the wheel, on the real model and on text that they were not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_server.exits.bundle import (
    BUILTIN,
    BundleRef,
    HeadBundle,
    describe_backbone,
    open_bundle,
    write_bundle,
)
from helios_server.exits.data import prompts
from helios_server.exits.evaluate import Evaluation, evaluate
from helios_server.exits.head import head_shapes
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer

NAMES = ("general", "prose", "code")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(ensure_smollm2())


@pytest.mark.parametrize("name", NAMES)
def test_they_fit_the_model_and_say_how_they_were_made(checkpoint: Checkpoint, name: str) -> None:
    bundle = open_bundle(BundleRef(f"builtin://{name}"), checkpoint)
    assert (bundle.layers, bundle.kind) == ((24, 27), "mlp")
    assert (BUILTIN / name / "exits.safetensors").stat().st_size < 2 * 5_000_000
    training = bundle.meta["training"]
    assert training["command"]
    assert all(item["source"] and item["licence"] and item["tokens"] for item in training["data"])
    assert len(bundle.meta["evaluation"]) >= 3
    for layer in bundle.layers:
        calibration = bundle.calibration(layer)
        assert calibration is not None
        threshold = calibration.threshold(0.2)
        assert threshold is not None
        assert 0 < threshold < 1


@pytest.fixture(scope="module")
def measured(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    """All bundles, none, and one of noise, at both exits, on a dozen prompts of code cut to one length."""
    tokenizer = Tokenizer.open(checkpoint.path)
    rows = [ids for text in prompts("code", 40) if len(ids := tokenizer.encode(text)) >= 64][:12]
    bundles: dict[str, HeadBundle | None] = {
        name: open_bundle(BundleRef(f"builtin://{name}"), checkpoint) for name in NAMES
    }
    bundles |= {"bare": None, "noise": noise(checkpoint, tmp_path_factory.mktemp("noise"))}
    backbone = Backbone.load(checkpoint, 30)
    windows = torch.tensor([ids[:64] for ids in rows])
    return evaluate(backbone, bundles, (24, 27), windows, tokenizer)


def noise(checkpoint: Checkpoint, path: Path) -> HeadBundle:
    torch.manual_seed(0)
    size = checkpoint.config.hidden_size
    tensors = {name: torch.randn(shape) / size**0.5 for name, shape in head_shapes("mlp", size).items()}
    heads = {layer: ("mlp", tensors) for layer in (24, 27)}
    write_bundle(path, heads, {"backbone": describe_backbone(checkpoint), "training": {}})
    return HeadBundle.load(path, checkpoint)


def test_heads_repair_most_of_what_an_early_exit_loses(measured: dict[str, Evaluation]) -> None:
    for trained, bare in zip(measured["general"].exits, measured["bare"].exits, strict=True):
        assert trained.quality_percent > bare.quality_percent + 10
        assert trained.agreement > bare.agreement + 0.1


def test_quality_rises_with_depth(measured: dict[str, Evaluation]) -> None:
    for name in NAMES:
        shallow, deep = measured[name].exits
        assert deep.quality_percent > shallow.quality_percent


def test_a_specialist_of_another_domain_is_far_worse_and_no_less_confident(
    measured: dict[str, Evaluation],
) -> None:
    for right, wrong in zip(measured["code"].exits, measured["prose"].exits, strict=True):
        assert wrong.quality_percent < right.quality_percent - 10
        assert wrong.agreement < right.agreement - 0.1


def test_noise_is_measured_as_bad(measured: dict[str, Evaluation]) -> None:
    assert all(item.quality_percent < 60 and item.agreement < 0.05 for item in measured["noise"].exits)
