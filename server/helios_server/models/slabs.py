"""Where keys and values stand: slabs of pages, one a layer, in one layout for every path and every caller.

The layout is read by the KV pool and by attention; `Scratch` serves those who read whole sequences without
the engine: profile, tune, audit and the plain loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from helios_server.native.layers import UNIT_BYTES

PAGE_TOKENS = 16
"""Tokens of a page, where nobody asks for another number."""


@dataclass(frozen=True, slots=True)
class SlabLayout:
    """A slab is [pages, 2, kv_heads, page_tokens, width]; 2: keys, then values. A head's keys lie side by
    side in a page, as attention reads them. The width is head_dim, and where an element has 8 bits, the bytes
    of a float32 behind it, its token's and head's unit: a key or value is element * unit.

    dtype: of the slab (int8 wherever an element has 8 bits); kept: of an element; read: torch's path attends
    in it.
    """

    kv_heads: int
    page_tokens: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    kept: torch.dtype
    read: torch.dtype

    @classmethod
    def of(cls, config: ModelConfig, numerics: Numerics, page_tokens: int = PAGE_TOKENS) -> SlabLayout:
        """Of a model's keys and values."""
        kept = numerics.keys_and_values
        dtype = torch.int8 if kept.itemsize == 1 else kept
        sizes = (config.num_kv_heads, page_tokens, config.head_dim)
        return cls(*sizes, dtype, numerics.device, kept, numerics.activations)

    @property
    def has_units(self) -> bool:
        """Whether an element is to be multiplied by a unit."""
        return self.kept.itemsize == 1

    @property
    def width(self) -> int:
        """Elements of a slab that a key or a value of one head takes, its unit included."""
        return self.head_dim + (UNIT_BYTES if self.has_units else 0)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's keys and values in one layer."""
        return 2 * self.kv_heads * self.width * self.dtype.itemsize

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in one layer."""
        return self.page_tokens * self.token_bytes

    def shape(self, pages: int) -> tuple[int, ...]:
        """Of a slab of `pages` pages."""
        return (pages, 2, self.kv_heads, self.page_tokens, self.width)


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
