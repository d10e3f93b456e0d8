"""What others are waiting for: the events of requests and the results of tasks, until they may be told.

Kept by the engine, whose thread alone tells: after the picture that others read has been swapped, so that
nobody hears of what cannot be read yet, and outside its lock. It must not know what is told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from helios_server.engine.request import Event, FailedEvent, OnEvent

logger = logging.getLogger(__name__)


class News:
    """In the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()

    def add(self, tell: Callable[..., None], *what: object) -> None:
        """To be called with this at the next telling."""
        self._waiting.append((tell, what))

    def of(self, on_event: OnEvent, broke: Callable[[BaseException], None]) -> OnEvent:
        """Takes a request's events in place of `on_event`, which gets them at the next telling.

        broke: called when it raises; then it gets nothing more but the failure that this leads to.
        """
        listener = _Listener(on_event, broke)
        return lambda event: self.add(listener.hear, event)

    def tell(self) -> None:
        """Calls everybody. One who cannot be told keeps no other waiting."""
        while self._waiting:
            tell, what = self._waiting.popleft()
            try:
                tell(*what)
            except BaseException:
                logger.exception("a caller that waited for the engine cannot be answered")


class _Listener:
    """Who asked for one request."""

    def __init__(self, on_event: OnEvent, broke: Callable[[BaseException], None]) -> None:
        self._on_event = on_event
        self._broke = broke
        self._broken = False

    def hear(self, event: Event) -> None:
        """In the order of the events."""
        failure = isinstance(event, FailedEvent)
        if self._broken and not failure:
            return
        try:
            self._on_event(event)
        except BaseException as error:
            if failure:
                raise
            self._broken = True
            self._broke(error)
