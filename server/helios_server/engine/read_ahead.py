"""One thing that another thread reads while the engine computes: a layer, a part of a table.

Used by the audit's batches. The next one is begun once the one before is let go, so that one is held at a
time. It must not wait: whoever has nothing to do before it is there yields.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Read(Protocol):
    """Has another thread call it, which may wait for a volume."""

    def __call__(self, load: Callable[[], T], /) -> Future[T]: ...


class ReadAhead:
    """`waits`: nothing can be done before what was begun is there."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._begun: Future[Any] | None = None
        self._wanted = False

    @property
    def has_begun(self) -> bool:
        """Something is being read, or was, and not taken."""
        return self._begun is not None

    @property
    def waits(self) -> bool:
        return self._wanted and self._begun is not None and not self._begun.done()

    def begin(self, load: Callable[[], object]) -> None:
        """Has it read. What was begun before must have been taken, and let go."""
        self._begun = self._read(load)

    def take(self) -> Generator[None, None, Any]:
        """What was begun, once it is there. Raises what reading raised."""
        self._wanted = True
        while self.waits:
            yield
        self._wanted, begun = False, self._begun
        self._begun = None
        if begun is None:
            raise ValueError("nothing was begun")
        return begun.result()
