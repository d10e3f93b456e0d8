"""Causal attention without a cache, for whole sequences packed one after the other.

Used where a text is read once: by profile, tune and audit. Serving attends through the engine's KV pool
instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.models.block import Attend


def causal_attention(lengths: Sequence[int]) -> Attend:
    """Attention over packed sequences of the given lengths (tokens); the T rows are their concatenation."""
    if len(set(lengths)) == 1:
        return _same_length(len(lengths), lengths[0])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(torch.split(x, list(lengths)) for x in (q, k, v)), strict=True)
        return torch.cat([_attend(q1[None], k1[None], v1[None])[0] for q1, k1, v1 in parts])

    return attend


def _same_length(count: int, length: int) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.reshape(count, length, x.shape[1], x.shape[2]) for x in (q, k, v))
        return _attend(q, k, v).flatten(0, 1)

    return attend


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q: [B, L, heads, head_dim]; k, v: [B, L, kv_heads, head_dim]. Returns [B, L, heads, head_dim]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
