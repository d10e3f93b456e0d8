"""RMS norm with the casts of transformers: computed in float32, cast back, then scaled. Used by block and
backbone."""

from __future__ import annotations

import torch
from torch import Tensor


class RmsNorm:
    """weight: [size], activation dtype."""

    __slots__ = ("eps", "weight")

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        variance = wide.pow(2).mean(-1, keepdim=True)
        return self.weight * (wide * torch.rsqrt(variance + self.eps)).to(x.dtype)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.weight.numel() * self.weight.element_size()
