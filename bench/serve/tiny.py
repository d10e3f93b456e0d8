"""A model so small that a pod's time goes to its doors: random numbers, for speed and never for quality."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.checkpoints import make_checkpoint


def write(folder: Path) -> Path:
    """Writes the checkpoint; returns its folder."""
    return make_checkpoint(folder, layers=2, dtype=torch.bfloat16, max_position_embeddings=4096)
