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
from helios_server.models.rope_config import RopeScaling

Rope = tuple[Tensor, Tensor]  # cos and sin, each [T, head_dim], activation dtype


class RopeTable:
    """cos and sin of every position: [max_context, head_dim / 2] each, activation dtype."""

    def __init__(self, config: ModelConfig, numerics: Numerics, max_context: int) -> None:
        angles = torch.arange(max_context).float()[:, None] * _inverse_frequencies(config)[None, :]
        self._cos = numerics.weight(angles.cos())
        self._sin = numerics.weight(angles.sin())

    def at(self, positions: Tensor) -> Rope:
        """positions: [T] int64, each < max_context. Returns cos, sin: [T, head_dim]."""
        cos, sin = self._cos[positions], self._sin[positions]
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position, [max_context, head_dim / 2]."""
        return self._cos, self._sin

    @property
    def max_context(self) -> int:
        """Positions in the table."""
        return self._cos.shape[0]

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return 2 * self._cos.numel() * self._cos.element_size()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotates x: [T, heads, head_dim] by its positions."""
    cos, sin = rope[0].unsqueeze(1), rope[1].unsqueeze(1)
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


def _inverse_frequencies(config: ModelConfig) -> Tensor:
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
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
