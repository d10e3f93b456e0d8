"""Keys and values of all running sequences: one slab a layer, cut in pages whose ids all layers share.

Used by the runner through `paged_attention.py`; resized by changes of limits. Layers come and go as slabs,
pages by the slabs' length. It must not know which sequence holds which page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from helios_server.engine import host_memory
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics


class KvPool:
    """Slabs of shape [pages, page_tokens, 2, kv_heads, head_dim] in the activation dtype; 2: keys, then
    values.

    A slab takes address space for `reserved` pages; on the CPU memory is taken when a page is first written,
    so that pages can come and go without copying.
    """

    def __init__(
        self,
        config: ModelConfig,
        numerics: Numerics,
        layers: int,
        pages: int,
        page_tokens: int,
        reserved: int = 0,
    ) -> None:
        self.page_tokens = page_tokens
        self.pages = pages
        self._row = (page_tokens, 2, config.num_kv_heads, config.head_dim)
        self.device = numerics.device
        self.dtype = numerics.activations
        self._reserved = reserved if numerics.device.type == "cpu" else 0
        self._slabs = [self._slab() for _ in range(layers)]

    @property
    def layers(self) -> int:
        """Layers that have a slab."""
        return len(self._slabs)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages of all layers, written or not."""
        return self.layers * self.pages * self.page_bytes

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in one layer."""
        return math.prod(self._row) * self.dtype.itemsize

    # -- contents --------------------------------------------------------------------------------------------

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Stores new tokens. slots: [T] int64, page * page_tokens + offset; k, v: [T, kv_heads, head_dim]."""
        self._slabs[layer].tensor.view(-1, *self._row[1:]).index_copy_(0, slots, torch.stack((k, v), dim=1))

    def read(self, layer: int, pages: Tensor, into: Tensor) -> None:
        """Gathers pages: [N] int64, into [N, page_tokens, 2, kv_heads, head_dim]."""
        torch.index_select(self._slabs[layer].tensor, 0, pages, out=into)

    def buffer(self, pages: int) -> Tensor:
        """A place to gather `pages` pages of a layer into."""
        return torch.empty(pages, *self._row, dtype=self.dtype, device=self.device)

    # -- size ------------------------------------------------------------------------------------------------

    def resize(self, pages: int, moves: Mapping[int, int]) -> None:
        """Changes the pages that exist; first moves those in use, old id to new id, below the new end."""
        source, target = self._ids(list(moves)), self._ids(list(moves.values()))
        kept, self.pages = min(pages, self.pages), pages
        for index, slab in enumerate(self._slabs):
            if moves:
                slab.tensor[target] = slab.tensor[source]
            self._slabs[index] = slab.resized(pages, kept)

    def set_layers(self, layers: int) -> None:
        """Drops the slabs of layers >= `layers`, or adds empty ones."""
        del self._slabs[layers:]
        self._slabs += [self._slab() for _ in range(layers - len(self._slabs))]

    def _slab(self) -> _Slab:
        return _Slab((max(self.pages, self._reserved), *self._row), self.dtype, self.device)

    def _ids(self, pages: list[int]) -> Tensor:
        return torch.tensor(pages, dtype=torch.int64, device=self.device)


class _Slab:
    """One layer's pages. On the CPU its memory comes and goes in place; on an accelerator by copying."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._lazy = host_memory.LazyTensor(shape, dtype) if device.type == "cpu" else None
        self.tensor = self._lazy.tensor if self._lazy else torch.zeros(shape, dtype=dtype, device=device)

    def resized(self, pages: int, kept: int) -> _Slab:
        """A slab that holds `pages` pages, of which the first `kept` have their contents: itself where it can
        be.
        """
        if self._lazy and pages <= len(self.tensor):
            self._lazy.give_back(pages)
            return self
        contents, shape, device = self.tensor[:kept], (pages, *self.tensor.shape[1:]), self.tensor.device
        try:
            other = _Slab(shape, contents.dtype, device)
        except torch.OutOfMemoryError:  # not both at once: the contents wait in the host's memory
            contents = contents.cpu()
            del self.tensor
            other = _Slab(shape, contents.dtype, device)
        other.tensor[:kept] = contents
        return other
