"""Checkpoints and bundles with properties that a measurement must find."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from helios_server.exits.bundle import describe_backbone, write_bundle
from helios_server.exits.confidence import Calibration
from helios_server.exits.head import head_shapes
from helios_server.models.checkpoint import Checkpoint
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and then over the moon.",
    "It is a truth universally acknowledged, that a single man in possession",
    "def add(a, b):\n    return a + b\n",
    "äöü 漢字 and other letters",
]


def idle_after(directory: Path, layer: int, layers: int = 4) -> Path:
    """A checkpoint whose layers >= `layer` change nothing, so that an exit there is as good as full depth."""
    make_checkpoint(directory, layers=layers)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for index in range(layer, layers):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            tensors[f"model.layers.{index}.{name}.weight"].zero_()
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def noise_bundle(
    directory: Path,
    model: Path,
    layers: tuple[int, ...],
    kind: str = "mlp",
    seed: int = 0,
    calibration: Mapping[int, Calibration] | None = None,
) -> Path:
    """Heads that were never trained, with the calibrations that one likes."""
    checkpoint = Checkpoint.open(model)
    generator = torch.Generator().manual_seed(seed)
    shapes = head_shapes(kind, checkpoint.config.hidden_size)
    heads = {
        layer: (kind, {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})
        for layer in layers
    }
    known = {str(layer): found.to_json() for layer, found in (calibration or {}).items()}
    write_bundle(directory, heads, {"backbone": describe_backbone(checkpoint), "calibration": known})
    return directory


def identity_bundle(directory: Path, model: Path, layers: tuple[int, ...]) -> Path:
    """Affine heads that hand the hidden state on; RMS norm of an RMS norm is the same up to epsilon."""
    checkpoint = Checkpoint.open(model)
    d = checkpoint.config.hidden_size
    tensors = {"norm": torch.ones(d), "affine.weight": torch.eye(d), "affine.bias": torch.zeros(d)}
    write_bundle(
        directory,
        {layer: ("affine", tensors) for layer in layers},
        {"backbone": describe_backbone(checkpoint)},
    )
    return directory
