"""What the doors of one pod share: the engine once it runs, and what is known of the pod beside it.

Built by `rpc.server`, handed to every service. Used by the event loop only, which must not wait for the
engine: what takes its lock (a request, an end) goes through `ask`; what it tells of itself is read at once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from helios_contract.limits import Limits

from helios_server.engine.engine import Engine
from helios_server.errors import Draining
from helios_server.rpc.bodies import Bodies
from helios_server.rpc.errors import NotReady
from helios_server.rpc.health import Health, Phase, hung
from helios_server.rpc.request_log import RequestLog
from helios_server.rpc.stream import Mailbox
from helios_server.telemetry.energy import EnergyMeter
from helios_server.telemetry.metrics import Metrics
from helios_server.telemetry.prompts import LivePrompts
from helios_server.telemetry.tracing import Tracing

T = TypeVar("T")


@dataclass
class Pod:
    """model_name: as clients ask for it; limits: those of the start, until the engine holds them; calls:
    requests of any door that have not ended; boot_id: another one after every restart; started: seconds on
    the monotonic clock; mailbox: of every stream's events; bodies: what requests bring. Made on the loop that
    it is used by."""

    model_name: str
    limits: Limits
    health: Health
    metrics: Metrics
    prompts: LivePrompts
    energy: EnergyMeter | None = None
    tracing: Tracing | None = None
    request_log: RequestLog | None = None
    engine: Engine | None = None
    calls: int = 0
    boot_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    mailbox: Mailbox = field(default_factory=Mailbox)
    bodies: Bodies = field(default_factory=Bodies)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "helios-calls"))

    def hand_over(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Calls the engine from a thread, in the order handed over: it holds callers off while it changes."""
        return self._thread.submit(call, *arguments)

    async def ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """The same, and waits for the answer."""
        return await asyncio.wrap_future(self.hand_over(call, *arguments))

    def close(self) -> None:
        """No more calls."""
        self._thread.shutdown(wait=False)
        if self.request_log is not None:
            self.request_log.close()

    def hung(self) -> str:
        """Why the engine is taken to hang, as of now; "" while it is not, or loads."""
        return hung(self.engine.activities()) if self.engine else ""

    def loaded_engine(self) -> Engine:
        """The engine, whatever else the pod does. NotReady while the model loads."""
        if self.engine is None:
            raise NotReady("model", str(Phase.LOADING), "Try again")
        return self.engine

    def serving_engine(self) -> Engine:
        """The engine, if it takes requests. NotReady or Draining, both to be retried elsewhere, if not."""
        engine = self.loaded_engine()
        if self.health.draining:
            raise Draining("server", "is draining", "Try again: another pod will answer")
        if not self.health.ready:
            raise NotReady("server", str(self.health.phase), "Try again")
        return engine

    def serve(self, limits: Limits) -> None:
        """These limits hold now: what the doors keep beside the engine follows."""
        self.limits = limits
        self.prompts.resize(limits.live_prompts)
        self.metrics.serving(limits.candidate, self.loaded_engine().info().layer_budget, limits.precision)
