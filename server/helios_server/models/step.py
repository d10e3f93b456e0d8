"""What a segment of layers is run over: new tokens, and the cache that their keys and values go to.

The one seam between whoever plans rows (the engine's runner, the plain loop, profile, tune and audit) and
what computes them. Prepared once, and used by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from helios_server.models.attention import PagedAttention, Places
from helios_server.models.rows import Rows, Stretch, rows_of
from helios_server.models.slabs import Scratch, SlabLayout, Slabs


class Step:
    """rows: where the new tokens stand; slabs: of every layer that is run over it."""

    def __init__(self, rows: Rows, slabs: Slabs) -> None:
        self.rows = rows
        self.slabs = slabs

    def first(self, tokens: int) -> Step:
        """Over the first `tokens` tokens alone, which are whole stretches."""
        return self if tokens == self.rows.tokens else Step(self.rows.first(tokens), self.slabs)

    @cached_property
    def positions(self) -> Tensor:
        """[T] int64, on the device."""
        return torch.from_numpy(self.rows.positions).to(self.slabs.layout.device)

    @cached_property
    def places(self) -> Places:
        """Torch's path: where keys and values of these rows go, in any layer."""
        return Places(self.rows, self.slabs.layout)

    @cached_property
    def attention(self) -> PagedAttention:
        """Torch's path: the attention of these rows, in any layer."""
        return PagedAttention(self.rows, self.slabs.layout)


def whole_sequences(layout: SlabLayout, lengths: Sequence[int]) -> Step:
    """Sequences of the given lengths (tokens) from their beginning, packed one after the other: every layer
    is run over all of it once, so that one layer's keys and values are all that is held."""
    scratch = Scratch(layout, lengths, shared=True)
    stretches = [Stretch(0, length, pages) for length, pages in zip(lengths, scratch.pages_of, strict=True)]
    return Step(rows_of(stretches, layout.page_tokens), scratch)
