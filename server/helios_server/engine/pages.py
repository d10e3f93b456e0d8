"""Which pages of the KV cache are free: ids only, the same in every layer's slab.

Called by the scheduler (to take and give back), by `prefixes.py` (to keep what pages hold) and by changes of
limits (to resize). It must touch no tensor; moving contents is the pool's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many


class PageAllocator:
    """Hands out page ids below `capacity` (pages), lowest first, so that the end of the slabs empties by
    itself.

    Several sequences may hold a page. One that is kept stays as it is after the last of them has let go: it
    counts as free, and is handed out when no other page is left, the one that has waited longest first.
    on_lost: hears of each kept page whose contents are given up for that.
    """

    def __init__(self, capacity: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.on_lost: Callable[[int], None] = lambda page: None
        self._capacity = capacity
        self._free = list(range(capacity))
        self._holders: dict[int, int] = {}
        self._kept: set[int] = set()
        self._cached: dict[int, None] = {}  # kept and held by none, in the order in which they were let go

    @property
    def capacity(self) -> int:
        """Pages that exist."""
        return self._capacity

    @property
    def used(self) -> int:
        """Pages that sequences hold, each counted once."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Pages that can be taken now."""
        return len(self._free) + len(self._cached)

    @property
    def cached(self) -> int:
        """Pages of the free ones that are kept for what they hold."""
        return len(self._cached)

    def holders(self, page: int) -> int:
        """Sequences that hold a page."""
        return self._holders.get(page, 0)

    def free_beside(self, pages: Iterable[int]) -> int:
        """Pages that could still be taken once these are held."""
        return self.free - sum(page in self._cached for page in pages)

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens of one sequence fill."""
        return -(-tokens // self.page_tokens)

    # -- who holds a page ------------------------------------------------------------------------------------

    def take(self, count: int) -> list[int]:
        """Takes `count` pages. The caller has looked at `free`: asking for more is an error."""
        if count > self.free:
            raise ValueError(f"{count} pages asked, {self.free} free")
        while len(self._free) < count:
            self._lose_oldest()
        taken = [heapq.heappop(self._free) for _ in range(count)]
        self._holders.update(dict.fromkeys(taken, 1))
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """One more sequence holds these pages, which others hold or which are kept."""
        for page in pages:
            self._cached.pop(page, None)
            self._holders[page] = self.holders(page) + 1

    def give_back(self, pages: Many[int]) -> None:
        """Returns pages that a sequence held, in its order: what follows is of no use without what precedes,
        and is given up first.
        """
        for page in reversed(pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                del self._holders[page]
                self._put_back(page)

    def _put_back(self, page: int) -> None:
        if page in self._kept:
            self._cached[page] = None
        else:
            heapq.heappush(self._free, page)

    # -- what a page holds -----------------------------------------------------------------------------------

    def keep(self, page: int) -> None:
        """What a page that is held has in it may be asked for again."""
        self._kept.add(page)

    def drop(self, page: int) -> None:
        """Nobody will ask for what a kept page has in it."""
        self._kept.remove(page)
        if page in self._cached:
            del self._cached[page]
            heapq.heappush(self._free, page)

    def _lose_oldest(self) -> None:
        page = next(iter(self._cached))
        self.drop(page)
        self.on_lost(page)

    # -- size ------------------------------------------------------------------------------------------------

    def resize(self, capacity: int) -> dict[int, int]:
        """Grows or shrinks to `capacity` pages, at least `used`; gives up kept ones that find no place.

        Returns the moves (old id to new id) that it takes.
        """
        if capacity < self.used:
            raise ValueError(f"{self.used} pages are in use, capacity {capacity} asked")
        while self.used + self.cached > capacity:
            self._lose_oldest()
        standing = self._holders.keys() | self._cached.keys()
        high = sorted(page for page in standing if page >= capacity)
        low = [page for page in range(capacity) if page not in standing]
        moves = dict(zip(high, low, strict=False))
        self._holders = {moves.get(page, page): count for page, count in self._holders.items()}
        self._kept = {moves.get(page, page) for page in self._kept}
        self._cached = {moves.get(page, page): None for page in self._cached}
        self._free = low[len(high) :]  # sorted, so a heap
        self._capacity = capacity
        return moves
