"""Where keys and values stand: slabs of pages, one a layer, in one layout for every path and every caller.

The layout is read by the KV pool and by attention; `Scratch` serves those who read whole sequences without
the engine: profile, tune, audit and the plain loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics

PAGE_TOKENS = 16
"""Tokens of a page, where nobody asks for another number."""


@dataclass(frozen=True, slots=True)
class SlabLayout:
    """A slab is [pages, 2, kv_heads, page_tokens, head_dim]; 2: keys, then values. A head's keys lie side by
    side in a page, as attention reads them."""

    kv_heads: int
    page_tokens: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, config: ModelConfig, numerics: Numerics, page_tokens: int = PAGE_TOKENS) -> SlabLayout:
        """Of a model's keys and values."""
        return cls(
            config.num_kv_heads, page_tokens, config.head_dim, numerics.keys_and_values, numerics.device
        )

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in one layer."""
        return math.prod(self.shape(1)) * self.dtype.itemsize

    def shape(self, pages: int) -> tuple[int, ...]:
        """Of a slab of `pages` pages."""
        return (pages, 2, self.kv_heads, self.page_tokens, self.head_dim)


class Slabs(Protocol):
    """A cache as attention sees it."""

    @property
    def layout(self) -> SlabLayout: ...

    def slab(self, layer: int) -> Tensor:
        """Keys and values of one layer."""
        ...


class Scratch:
    """Slabs of a few sequences whose pages follow each other.

    lengths: tokens of each sequence; shared: one slab serves all layers, for whoever runs them one after the
    other over whole sequences and never comes back.
    """

    def __init__(self, layout: SlabLayout, lengths: Sequence[int], *, shared: bool) -> None:
        self.layout = layout
        self._shared = shared
        self._slabs: dict[int, Tensor] = {}
        self.pages_of: list[range] = []
        self._pages = 0
        for length in lengths:
            stop = self._pages - (-length // layout.page_tokens)
            self.pages_of.append(range(self._pages, stop))
            self._pages = stop

    def slab(self, layer: int) -> Tensor:
        """Made when it is first asked for."""
        key = 0 if self._shared else layer
        if key not in self._slabs:
            layout = self.layout
            shape = layout.shape(self._pages)
            self._slabs[key] = torch.zeros(shape, dtype=layout.dtype, device=layout.device)
        return self._slabs[key]
