"""Whether the pod lives and whether it serves: one truth for grpc.health.v1, the HTTP probes and telemetry.

Moved from phase to phase by `rpc.server`, read by the doors. It must not look for itself: what changes, tells
it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from enum import StrEnum

from grpc_health.v1 import health, health_pb2

from helios_server.engine.pulse import Activity, Work

logger = logging.getLogger(__name__)

LIVENESS = ""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


LONGEST_SECONDS = {Work.STEP: 300.0, Work.TASK: 900.0, Work.CHANGE: 3600.0}
"""Without a sign of life. A step, and a unit of an audit, take seconds on the slowest machine; a task between
steps moves pages; a change reads a whole model, perhaps over a network."""


def hung(activities: Iterable[Activity]) -> str:
    """Why an engine that is at this is taken to hang; "" while it may still get on."""
    for activity in activities:
        if activity.seconds > LONGEST_SECONDS[activity.work]:
            took = f"{activity.work} has shown no sign of life for {activity.seconds:.0f} s"
            return f"the engine hangs: {took}; restart the pod"
    return ""


class Phase(StrEnum):
    """A pod's life; each value is the sentence that a probe shows."""

    LOADING = "the model is loading"
    WARMING = "the first generation runs"
    SERVING = "serving"
    DRAINING = "draining: running requests end, new ones are refused"
    FAILED = "the engine failed; restart the pod"


class Health:
    """The phase, and the grpc.health.v1 servicer that shows it on both ports.

    services: full names of those that are ready when the pod is; own: of those that answer as long as it
    lives; hung: why the engine is taken to hang, "" while it is not.
    """

    def __init__(self, services: Iterable[str], own: Iterable[str] = ()) -> None:
        self._services = tuple(services)
        self._own = (LIVENESS, *own)
        self.phase = Phase.LOADING
        self.hung = ""
        self.drain_begun = asyncio.Event()
        """For whoever waits for it."""
        self.servicer = health.aio.HealthServicer()

    async def start(self) -> None:
        await self._show()

    async def become(self, phase: Phase) -> None:
        """A pod that drains does not serve again, and one that failed does nothing else."""
        if self.phase is Phase.FAILED or (self.draining and phase is not Phase.FAILED):
            return
        self.phase = phase
        if self.draining:
            self.drain_begun.set()
        await self._show()

    async def judge(self, hung: str) -> None:
        """The engine hangs, or gets on again."""
        if hung and not self.hung:
            logger.error("%s", hung)
        if hung != self.hung:
            self.hung = hung
            await self._show()

    @property
    def alive(self) -> bool:
        return self.phase is not Phase.FAILED and not self.hung

    @property
    def ready(self) -> bool:
        return self.phase is Phase.SERVING and not self.hung

    @property
    def sentence(self) -> str:
        """What a probe shows."""
        return self.hung or str(self.phase)

    @property
    def draining(self) -> bool:
        return self.phase is Phase.DRAINING

    async def _show(self) -> None:
        for service in self._own:
            await self.servicer.set(service, _SERVING if self.alive else _NOT_SERVING)
        for service in self._services:
            await self.servicer.set(service, _SERVING if self.ready else _NOT_SERVING)
