"""Which pages of the KV cache are free: ids only, the same in every layer's slab.

Called by the scheduler (to take and give back) and by changes of limits (to resize). It must touch no tensor;
moving contents is the pool's.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class PageAllocator:
    """Hands out page ids below `capacity` (pages), lowest first, so that the end of the slabs empties by
    itself.
    """

    def __init__(self, capacity: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self._capacity = capacity
        self._free = list(range(capacity))
        self._used: set[int] = set()

    @property
    def capacity(self) -> int:
        """Pages that exist."""
        return self._capacity

    @property
    def used(self) -> int:
        """Pages that sequences hold."""
        return len(self._used)

    @property
    def free(self) -> int:
        """Pages that can be taken now."""
        return len(self._free)

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens of one sequence fill."""
        return -(-tokens // self.page_tokens)

    def take(self, count: int) -> list[int]:
        """Takes `count` pages. The caller has looked at `free`: asking for more is an error."""
        if count > len(self._free):
            raise ValueError(f"{count} pages asked, {len(self._free)} free")
        taken = [heapq.heappop(self._free) for _ in range(count)]
        self._used.update(taken)
        return taken

    def give_back(self, pages: Iterable[int]) -> None:
        """Returns pages that a sequence held."""
        for page in pages:
            self._used.remove(page)
            heapq.heappush(self._free, page)

    def resize(self, capacity: int) -> dict[int, int]:
        """Grows or shrinks to `capacity` pages, at least `used`.

        Returns the moves (old id to new id) that it takes.
        """
        if capacity < self.used:
            raise ValueError(f"{self.used} pages are in use, capacity {capacity} asked")
        high = sorted(page for page in self._used if page >= capacity)
        low = [page for page in range(capacity) if page not in self._used]
        moves = dict(zip(high, low, strict=False))
        self._used = {moves.get(page, page) for page in self._used}
        self._free = low[len(high) :]  # sorted, so a heap
        self._capacity = capacity
        return moves
