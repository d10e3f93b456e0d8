"""How much of the process's CPU time audits have taken, and whether that leaves room for more.

Kept by the auditor, which asks before a prompt is taken; work is counted in whatever thread does it. It must
know nothing of what the work is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.05
"""Of the process's CPU time, since it began."""


class CpuShare:
    """spent: CPU seconds that were counted. process, thread: clocks of CPU seconds."""

    def __init__(
        self,
        process: Callable[[], float] = time.process_time,
        thread: Callable[[], float] = time.thread_time,
    ) -> None:
        self.spent = 0.0
        self._process = process
        self._thread = thread
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, threads: int = 1) -> Iterator[None]:
        """Counts what is done within, in this thread. threads: that share the work, as much at most each as
        this one: theirs cannot be told apart from what others have them do.
        """
        began = self._thread()
        try:
            yield
        finally:
            with self._lock:
                self.spent += threads * (self._thread() - began)

    def allows(self, seconds: float) -> bool:
        """Whether so much more would stay within the share."""
        return self.spent + seconds <= SHARE * self._process()
