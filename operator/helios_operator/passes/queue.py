"""The work queue: keys of objects that a pass should look at, each at its due time and never twice; where
nothing happened, last.

Filled by everything that notices a change, emptied by the runtime. It carries no data: a pass looks for
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time


class WorkQueue:
    """A key added twice is looked at once, at the earlier time; not sooner than `spacing` seconds after its
    last look. An idle look waits while others are due: a backlog of them delays nothing that happened."""

    def __init__(self, spacing: float = 0.1) -> None:
        self._spacing = spacing
        self._due: dict[str, float] = {}
        self._idle: set[str] = set()
        self._last: dict[str, float] = {}
        self._wake = asyncio.Event()

    def add(self, key: str, after: float = 0.0, *, idle: bool = False) -> None:
        if not idle:
            self._idle.discard(key)
        elif key not in self._due:
            self._idle.add(key)
        due = max(time.monotonic() + after, self._last.get(key, 0.0) + self._spacing)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._wake.set()

    def __len__(self) -> int:
        """Keys that wait, due or not."""
        return len(self._due)

    def forget(self, key: str) -> None:
        """Its object is gone."""
        self._due.pop(key, None)
        self._idle.discard(key)
        self._last.pop(key, None)

    async def get(self) -> str:
        """The next key, when it is due."""
        while True:
            now = time.monotonic()
            ready = [key for key, due in self._due.items() if due <= now]
            if ready:
                key = min(ready, key=lambda key: (key in self._idle, self._due[key]))
                self._idle.discard(key)
                del self._due[key]
                self._last[key] = now
                return key
            await self._sleep(min(self._due.values(), default=None))

    async def _sleep(self, until: float | None) -> None:
        """Or until a key is due sooner."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else until - time.monotonic()):
                await self._wake.wait()
