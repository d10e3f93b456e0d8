"""One request's events on their way from the engine thread to the event loop.

Made by `rpc.conversation` for each request; those of one pod share a mailbox, so that a step wakes the loop
once, however many requests it was for. The engine thread only hands over; nothing here may block either side.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from helios_server.engine.request import Event, FailedEvent, FinishedEvent

Observe = Callable[[Event, float], None]
"""Sees every event on the loop, with the time at which the engine made it known (seconds, monotonic
clock)."""

MOST_UNREAD = 1024
"""Events that wait for a client that does not read: its row is for others then. What the network holds comes
on top: some thousand tokens, as a rule."""


_AT_ONCE = 32
"""Events that are taken up before the loop looks after everything else again."""


class Mailbox:
    """What comes for the streams of one loop, in the order in which it came: that of the running one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Stream, Event, float]] = deque()
        self._woken = False

    def put(self, stream: Stream, event: Event) -> None:
        """Called by the engine thread. RuntimeError when the loop is closed."""
        self._waiting.append((stream, event, time.monotonic()))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                self._woken = False
                raise

    def _deliver(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            stream, event, now = self._waiting.popleft()
            try:
                stream.arrive(event, now)
            except Exception as error:
                told = {"message": "an observer of a request failed", "exception": error}
                self._loop.call_exception_handler(told)
        if not self._waiting:
            self._woken = False  # what comes behind this wakes the loop again
            if not self._waiting:
                return
            self._woken = True
        self._loop.call_soon(self._deliver)


class Stream:
    """Iterate it on the loop; give `on_event` to the engine. `observe` also sees what no caller waits for any
    more. overrun: called, once, when too many events wait; they are let go, and none follow."""

    def __init__(
        self,
        mailbox: Mailbox,
        observe: Observe = lambda event, now: None,
        overrun: Callable[[], None] = lambda: None,
    ) -> None:
        self._mailbox = mailbox
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._observe = observe
        self._overrun = overrun
        self.most_unread = MOST_UNREAD
        self.ended = False
        """The engine has said its last word."""
        self.overran = False
        """The client does not read."""
        self._left = False

    def on_event(self, event: Event) -> None:
        """Called by the engine thread."""
        self._mailbox.put(self, event)

    def arrive(self, event: Event, now: float) -> None:
        """Called by the mailbox."""
        self.ended = isinstance(event, FinishedEvent | FailedEvent)
        self._keep(event)  # first: whatever happens to the observer, the caller gets its answer
        self._observe(event, now)

    def leave(self) -> None:
        """Nobody reads any more: what comes is observed, and not kept."""
        self._left = True

    def _keep(self, event: Event) -> None:
        if self.overran or self._left:
            return
        if self._queue.qsize() < self.most_unread or self.ended:
            self._queue.put_nowait(event)
            return
        self.overran = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._overrun()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not (self.ended and self._queue.empty()):
            yield await self._queue.get()
