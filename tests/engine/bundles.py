"""Head bundles for tests: random affine heads, which change every token and are quick to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from helios_contract.serves import Bundle
from helios_server.exits.bundle import describe_backbone, write_bundle
from helios_server.models.checkpoint import Checkpoint


def random_bundle(path: Path, model: Path, layers: Sequence[int], seed: int) -> Bundle:
    """A bundle of affine heads near the identity."""
    checkpoint = Checkpoint.open(model)
    size = checkpoint.config.hidden_size
    generator = torch.Generator().manual_seed(seed)

    def head() -> dict[str, torch.Tensor]:
        noise = torch.randn(size, size, generator=generator)
        return {
            "norm": torch.ones(size),
            "affine.weight": torch.eye(size) + 0.5 * noise / size**0.5,
            "affine.bias": 0.1 * torch.randn(size, generator=generator),
        }

    heads = {layer: ("affine", head()) for layer in layers}
    digest = write_bundle(path, heads, {"backbone": describe_backbone(checkpoint)})
    return Bundle(f"heads-{seed}", f"file://{path}", digest)
