"""How late the event loop is: what every stream of every door then waits for.

Run by `rpc.server` from the first port to the last. It must do nothing else on the loop.
"""

from __future__ import annotations

import asyncio
import time

from helios_server.telemetry.metrics import Metrics

_EVERY_SECONDS = 0.05


async def watch(metrics: Metrics, every: float = _EVERY_SECONDS) -> None:
    """Observes, until it is cancelled, how late it comes to moments that are due, each of them: of a loop
    that is held up, the many that fall into a long wait count as many."""
    due = time.monotonic() + every
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        while due <= now:
            metrics.loop_lag(now - due)
            due += every
