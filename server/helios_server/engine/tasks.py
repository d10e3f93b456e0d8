"""What waits for a boundary: tasks that run between two steps.

Kept by the engine, under its lock. Results go out as news. It must not know what the tasks do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from helios_server.engine.news import News
from helios_server.errors import HeliosError

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a task that has to wait: it is run again before the next step."""


class Tasks:
    """In the order in which they came."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, task: Callable[[], T]) -> Future[T]:
        """At the end of the queue."""
        future: Future[T] = Future()
        self._waiting.append((task, future))
        return future

    def run(self) -> None:
        """Each one once. Raises what is raised by one that breaks, and is no HeliosError."""
        for _ in range(len(self._waiting)):
            task, future = self._waiting.popleft()
            try:
                result = task()
            except NotYet:
                self._waiting.append((task, future))
            except BaseException as error:
                self._news.add(future.set_exception, error)
                if not isinstance(error, HeliosError):
                    raise
            else:
                self._news.add(future.set_result, result)

    def fail(self, error: HeliosError) -> None:
        """None will run any more."""
        while self._waiting:
            self._news.add(self._waiting.popleft()[1].set_exception, error)
