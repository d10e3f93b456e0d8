"""How much of the process's CPU time audits have taken, and whether that leaves room for more.

Kept by the auditor, which asks before a prompt is taken; work is counted in whatever thread does it. It must
know nothing of what the work is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.01
"""Of the process's CPU time, since it began."""


class CpuShare:
    """spent: CPU seconds that count against the share; total: all of them. process, thread: clocks of CPU
    seconds."""

    def __init__(
        self,
        process: Callable[[], float] = time.process_time,
        thread: Callable[[], float] = time.thread_time,
    ) -> None:
        self.spent = self.total = 0.0
        self._process = process
        self._thread = thread
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, threads: int = 1, *, held: bool = True) -> Iterator[None]:
        """Counts what is done within, in this thread. threads: that share the work, as much at most each as
        this one: theirs cannot be told apart from what others have them do. held: against the share.
        """
        began = self._thread()
        try:
            yield
        finally:
            seconds = threads * (self._thread() - began)
            with self._lock:
                self.total += seconds
                self.spent += seconds if held else 0.0

    def allows(self, seconds: float) -> bool:
        """Whether so much more would stay within the share."""
        return self.spent + seconds <= SHARE * self._process()
