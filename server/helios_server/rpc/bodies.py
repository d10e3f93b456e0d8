"""How many bytes of what clients send are held at once: a bound over all calls of a pod, by all doors.

Each pod has one for its requests, each gRPC port one for the calls beside them; doors ask for a place before
they read (`receiving` over gRPC). What others that are being read leave no place for waits for them; what
would find none however long it waited is refused, before any of it is read. It must not read anything itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from helios_server.errors import QueueFull

MOST_BYTES = 4 << 20
"""Of a message, or a body."""
MOST_HELD_BYTES = 128 << 20
"""Of requests, from the first byte to the end of the answer."""
MOST_ASIDE_BYTES = 16 << 20
"""Of all other calls of a port: they find a place whatever is generated."""
BODY_SECONDS = 60.0
"""For one to arrive."""
_MOST_WAITING = 4096
"""Calls that wait to be read; each keeps in gRPC what it may send unasked."""
_PATIENCE_SECONDS = 5.0
"""For others to be read."""
_RETRY_SECONDS = 1.0


class Place:
    """Of one body: what it takes at most, until it `is_read`."""

    def __init__(self, bodies: Bodies, size: int) -> None:
        self._bodies = bodies
        self.size = size
        self.known = False

    def is_read(self, size: int) -> None:
        """It has so many bytes."""
        self._bodies.settle(self, size)


class Bodies:
    """most: bytes in all."""

    def __init__(self, most: int = MOST_HELD_BYTES) -> None:
        self._most = most
        self._read = 0
        """Of bodies that are whole."""
        self._coming = 0
        """Promised to bodies that are being read."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are taken, or promised."""
        return self._read + self._coming

    @asynccontextmanager
    async def place(self, size: int = MOST_BYTES) -> AsyncIterator[Place]:
        """Room for a body of at most `size` bytes, from here to the end of its call. Raises QueueFull."""
        await self._promise(size)
        place = Place(self, size)
        try:
            yield place
        finally:
            self._leave(place)

    @contextmanager
    def whole(self, size: int) -> Iterator[None]:
        """Room for a body that has come by itself. Raises QueueFull."""
        if self.held + size > self._most:
            raise self._full()
        self._read += size
        try:
            yield
        finally:
            self._read -= size
            self._hand_out()

    def settle(self, place: Place, size: int) -> None:
        """Called by the place, when it is known what it takes."""
        if not place.known:
            self._coming -= place.size
            self._read += size
            place.size, place.known = size, True
            self._hand_out()

    def _leave(self, place: Place) -> None:
        self.settle(place, 0)
        self._read -= place.size
        self._hand_out()

    async def _promise(self, size: int) -> None:
        """Returns when `size` more are promised; in the order of asking."""
        if self._read + size > self._most or len(self._waiting) >= _MOST_WAITING:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._hand_out()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await turn
        except BaseException as error:
            if not turn.cancelled():  # it was promised in the moment in which nobody waited any more
                self._coming -= size
            self._hand_out()
            if isinstance(error, TimeoutError):
                raise self._full() from None
            raise

    def _hand_out(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self.held + size > self._most:
                    return
                self._coming += size
                turn.set_result(None)
            self._waiting.popleft()

    def _full(self) -> QueueFull:
        problem = f"{self.held} bytes of requests are under way, of at most {self._most}"
        return QueueFull("server", problem, "Try again later", _RETRY_SECONDS)
