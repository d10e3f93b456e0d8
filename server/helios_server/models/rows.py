"""The new tokens that layers run over, and in which pages of a cache their sequences lie.

Filled by the runner for every step, by whoever reads whole texts once for all; read by both paths of the
layers. Pages are ids of slabs (`slabs.py`); it touches no key and no value, and must not know who gives pages
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stretch:
    """New tokens of one sequence: those at [start, start + count). pages: ids that hold all its tokens up to
    the last of them, in order; more may follow."""

    start: int
    count: int
    pages: Sequence[int]

    @property
    def context(self) -> int:
        """Tokens of the sequence after this stretch, its own included."""
        return self.start + self.count


Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""positions, slots, tables, contexts and pages of `Rows`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """T new tokens of B stretches, one stretch after the other.

    Of each token, [T]: positions: its place in its sequence, int64; slots: where its keys and values go,
    page * page_tokens + offset, int64; tables: its row of `pages`, int32; contexts: tokens that it attends
    to, its own included, int32. pages: [B, width] int32, of each stretch, then what is of no meaning.
    """

    stretches: Sequence[Stretch]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    tables: NDArray[np.int32]
    contexts: NDArray[np.int32]
    pages: NDArray[np.int32]

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.positions)

    @property
    def arrays(self) -> Arrays:
        """The same ones in the next step, filled anew, if that has as many tokens and stretches."""
        return self.positions, self.slots, self.tables, self.contexts, self.pages

    def first(self, tokens: int) -> Rows:
        """The first `tokens` of them, which are whole stretches."""
        count = int(self.tables[tokens - 1]) + 1
        return Rows(
            self.stretches[:count],
            self.positions[:tokens],
            self.slots[:tokens],
            self.tables[:tokens],
            self.contexts[:tokens],
            self.pages[:count],
        )


class RowBuffers:
    """Arrays that persist from step to step, and grow where one has more than any before."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._positions = np.empty(0, np.int64)
        self._slots = np.empty(0, np.int64)
        self._tables = np.empty(0, np.int32)
        self._contexts = np.empty(0, np.int32)
        self._pages = np.zeros((0, 0), np.int32)
        self._written: list[list[int]] = []  # what each row of _pages holds
        self._cut: tuple[tuple[int, int], Arrays] | None = None  # for so many tokens and stretches

    def fill(self, stretches: Sequence[Stretch]) -> Rows:
        """The rows of a step, until the next one is filled."""
        tokens = sum([stretch.count for stretch in stretches])
        self._make_room(tokens, len(stretches), max([len(stretch.pages) for stretch in stretches]))
        at = 0
        for index, stretch in enumerate(stretches):
            self._write_pages(index, stretch.pages)
            if stretch.count == 1:
                self._write_token(at, index, stretch)
            else:
                self._write_tokens(at, index, stretch)
            at += stretch.count
        return Rows(stretches, *self._arrays(tokens, len(stretches)))

    def _write_token(self, at: int, index: int, stretch: Stretch) -> None:
        """One number after the other: numpy's whole arrays are dearer for the few of a step that decodes."""
        place = stretch.start
        nth, offset = divmod(place, self._page_tokens)
        self._positions[at] = place
        self._slots[at] = stretch.pages[nth] * self._page_tokens + offset
        self._tables[at] = index
        self._contexts[at] = place + 1

    def _write_tokens(self, at: int, index: int, stretch: Stretch) -> None:
        own = slice(at, at + stretch.count)
        positions, slots = self._positions[own], self._slots[own]
        positions[:] = np.arange(stretch.start, stretch.context)
        nth, offset = np.divmod(positions, self._page_tokens)
        np.multiply(self._pages[index, nth], self._page_tokens, out=slots)
        slots += offset
        self._tables[own] = index
        np.add(positions, 1, out=self._contexts[own], casting="same_kind")

    def _arrays(self, tokens: int, stretches: int) -> Arrays:
        size = tokens, stretches
        if self._cut is None or self._cut[0] != size:
            self._cut = (
                size,
                (
                    self._positions[:tokens],
                    self._slots[:tokens],
                    self._tables[:tokens],
                    self._contexts[:tokens],
                    self._pages[:stretches],
                ),
            )
        return self._cut[1]

    def _write_pages(self, index: int, pages: Sequence[int]) -> None:
        """A sequence takes a page every few steps only; comparing is cheap, converting is not."""
        if self._written[index] != pages:
            self._written[index] = list(pages)
            self._pages[index, : len(pages)] = self._written[index]

    def _make_room(self, tokens: int, stretches: int, width: int) -> None:
        if tokens > len(self._positions):
            tokens = max(tokens, 2 * len(self._positions))
            self._positions, self._slots = np.empty(tokens, np.int64), np.empty(tokens, np.int64)
            self._tables, self._contexts = np.empty(tokens, np.int32), np.empty(tokens, np.int32)
            self._cut = None
        rows, columns = self._pages.shape
        if stretches > rows or width > columns:
            rows, columns = max(stretches, rows), max(width, 2 * columns if width > columns else columns)
            self._pages = np.zeros((rows, columns), np.int32)
            self._written = [[] for _ in range(rows)]
            self._cut = None


def rows_of(stretches: Sequence[Stretch], page_tokens: int) -> Rows:
    """The rows of stretches that are run once."""
    return RowBuffers(page_tokens).fill(stretches)
