"""Keys and values of all running sequences: one slab a layer, cut in pages whose ids all layers share.

Read and written by the layers, through a step's rows; resized by changes of limits. Layers come and go as
slabs, pages by the slabs' length. It must not know which sequence holds which page.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from helios_server.engine import host_memory
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from helios_server.models.slabs import SlabLayout


class KvPool:
    """Slabs in the `layout` that all share.

    A slab takes address space for `reserved` pages; on the CPU memory is taken when a page, or one beside
    it, is first written, so that pages can come and go without copying.
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
        self.layout = SlabLayout.of(config, numerics, page_tokens)
        self.pages = pages
        self._reserved = reserved if numerics.device.type == "cpu" else 0
        self._slabs = [self._slab() for _ in range(layers)]

    @property
    def layers(self) -> int:
        """Layers that have a slab."""
        return len(self._slabs)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages of all layers, written or not."""
        return self.layers * self.pages * self.layout.page_bytes

    def slab(self, layer: int) -> Tensor:
        """All pages of one layer, and those reserved."""
        return self._slabs[layer].tensor

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
        layout = self.layout
        shape = layout.shape(max(self.pages, self._reserved))
        return _Slab(shape, self.pages, layout.dtype, layout.device)

    def _ids(self, pages: list[int]) -> Tensor:
        return torch.tensor(pages, dtype=torch.int64, device=self.layout.device)


class _Slab:
    """One layer's pages, of which `pages` exist. On the CPU its memory comes and goes in place; on an
    accelerator by copying."""

    def __init__(self, shape: tuple[int, ...], pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self._lazy = host_memory.LazyTensor(shape, dtype, pages) if device.type == "cpu" else None
        self.tensor = self._lazy.tensor if self._lazy else torch.zeros(shape, dtype=dtype, device=device)

    def resized(self, pages: int, kept: int) -> _Slab:
        """A slab that holds `pages` pages, of which the first `kept` have their contents: itself where it can
        be.
        """
        if self._lazy and pages <= len(self.tensor):
            self._lazy.use(pages)
            return self
        contents, shape, device = self.tensor[:kept], (pages, *self.tensor.shape[1:]), self.tensor.device
        try:
            other = _Slab(shape, pages, contents.dtype, device)
        except torch.OutOfMemoryError:  # not both at once: the contents wait in the host's memory
            contents = contents.cpu()
            del self.tensor
            other = _Slab(shape, pages, contents.dtype, device)
        other.tensor[:kept] = contents
        return other
