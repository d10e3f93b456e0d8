"""Rotary position embedding: a table for all positions, computed once in float32 and cast to the activation
dtype.

Used by `backbone.py` (the table) and `block.py` (the rotation). A table, not cos() of the batch's
positions, because the vector units' results for a position would otherwise depend on how many positions are
computed together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from helios_server.models.rope_config import RopeBase, RopeScaling

# cos and sin, each [T, bases * head_dim], activation dtype; a model with learned positions has no base.
Rope = tuple[Tensor, Tensor]


class RopeTable:
    """cos and sin of every position: [max_context, bases, head_dim / 2] each, activation dtype."""

    def __init__(self, config: ModelConfig, numerics: Numerics, max_context: int) -> None:
        places = torch.arange(max_context).float()[:, None]
        frequencies = [_inverse_frequencies(base, config.head_dim) for base in config.ropes]
        angles = torch.stack([places * f[None, :] for f in frequencies] or [places[:, :0]], dim=1)
        self._cos = numerics.weight(angles.cos())
        self._sin = numerics.weight(angles.sin_())  # in place: never more than both tables are held

    @staticmethod
    def bytes_of(config: ModelConfig, numerics: Numerics, max_context: int) -> int:
        """What such a table takes while it is made, in float32, and afterwards."""
        return max_context * len(config.ropes) * config.head_dim * max(4, numerics.activations.itemsize)

    def at(self, positions: Tensor) -> Rope:
        """positions: [T] int64, each < max_context. Returns cos, sin: [T, bases * head_dim]."""
        cos, sin = self._cos[positions], self._sin[positions]
        return torch.cat((cos, cos), dim=-1).flatten(1), torch.cat((sin, sin), dim=-1).flatten(1)

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position, [max_context, bases * head_dim / 2]."""
        return self._cos.flatten(1), self._sin.flatten(1)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return 2 * self._cos.numel() * self._cos.element_size()


def of_base(rope: Rope, base: int, head_dim: int) -> Rope:
    """The part of one base: cos, sin: [T, head_dim]."""
    part = slice(base * head_dim, (base + 1) * head_dim)
    return rope[0][:, part], rope[1][:, part]


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotates x: [T, heads, head_dim] by its positions."""
    cos, sin = rope[0].unsqueeze(1), rope[1].unsqueeze(1)
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


def _inverse_frequencies(base: RopeBase, head_dim: int) -> Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
    frequencies = 1.0 / (base.theta**exponents)
    scaling = base.scaling
    if scaling is None:
        return frequencies
    return frequencies / scaling.factor if scaling.kind == "linear" else _llama3(frequencies, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1's scaling: short wavelengths kept, long ones divided by the factor, those between
    interpolated."""
    longest_kept = scaling.original_max_context / scaling.high_freq_factor
    shortest_scaled = scaling.original_max_context / scaling.low_freq_factor
    wavelengths = 2 * math.pi / frequencies
    scaled = torch.where(wavelengths > shortest_scaled, frequencies / scaling.factor, frequencies)
    smooth = (scaling.original_max_context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    between = ~(wavelengths < longest_kept) & ~(wavelengths > shortest_scaled)
    return torch.where(between, blended, scaled)
