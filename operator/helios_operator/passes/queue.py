"""The work queue: keys of objects that a pass should look at, each at its due time and never twice.

Filled by everything that notices a change, emptied by the runtime. It carries no data: a pass looks for
itself.
"""

from __future__ import annotations

import asyncio
import time


class WorkQueue:
    """A key added twice is looked at once, at the earlier time; not sooner than `spacing` seconds after its
    last look."""

    def __init__(self, spacing: float = 0.1) -> None:
        self._spacing = spacing
        self._due: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._wake = asyncio.Event()

    def add(self, key: str, after: float = 0.0) -> None:
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
        self._last.pop(key, None)

    async def get(self) -> str:
        """The next key, when it is due."""
        while True:
            key = min(self._due, key=self._due.__getitem__, default=None)
            wait = None if key is None else self._due[key] - time.monotonic()
            if key is not None and wait is not None and wait <= 0:
                del self._due[key]
                self._last[key] = time.monotonic()
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue
