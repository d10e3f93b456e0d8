"""How long a request may wait: its deadline, and for a place in a full queue.

Kept by each call of both clients, which do the waiting. Only what has given no token is asked for again, and
only where the server says when: what a pod that goes away refuses, gRPC retries by the channel's service
config.
"""

from __future__ import annotations

import random
import time

from helios_client.errors import HeliosError, ResourceExhausted

_LEAST_SECONDS = 0.1
_SPREAD = 0.25
"""Of what the server says, that may be added: those that were refused together do not come back together."""


class Patience:
    """seconds: for a place in the queue, in all. timeout: of the whole request; None has no end."""

    def __init__(self, seconds: float, timeout: float | None) -> None:
        self._seconds = seconds
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds to the deadline, for gRPC."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def pause(self, error: HeliosError) -> float | None:
        """Seconds to wait before the request is sent again; None when it is not, and the error stands."""
        if not isinstance(error, ResourceExhausted) or error.retry_after is None:
            return None
        wait = max(_LEAST_SECONDS, error.retry_after) * (1 + _SPREAD * random.random())
        left = self.left()
        if wait > self._seconds or (left is not None and wait >= left):
            return None
        self._seconds -= wait
        return wait
