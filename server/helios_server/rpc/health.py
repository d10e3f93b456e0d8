"""Whether the pod lives and whether it serves: one truth for grpc.health.v1, the HTTP probes and telemetry.

Moved from phase to phase by `rpc.server`, read by the doors. It must not look for itself: what changes, tells
it.
"""

from __future__ import annotations

from enum import StrEnum

from grpc_health.v1 import health, health_pb2

LIVENESS = ""
READINESS = "helios.v1.Generation"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Phase(StrEnum):
    """A pod's life; each value is the sentence that a probe shows."""

    LOADING = "the model is loading"
    WARMING = "the first generation runs"
    SERVING = "serving"
    DRAINING = "draining: running requests end, new ones are refused"
    FAILED = "the engine failed; restart the pod"


class Health:
    """The phase, and the grpc.health.v1 servicer that shows it on both ports."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.servicer = health.aio.HealthServicer()

    async def start(self) -> None:
        await self._show()

    async def become(self, phase: Phase) -> None:
        """A pod that drains does not serve again, and one that failed does nothing else."""
        if self.phase is Phase.FAILED or (self.draining and phase is not Phase.FAILED):
            return
        self.phase = phase
        await self._show()

    @property
    def alive(self) -> bool:
        return self.phase is not Phase.FAILED

    @property
    def ready(self) -> bool:
        return self.phase is Phase.SERVING

    @property
    def draining(self) -> bool:
        return self.phase is Phase.DRAINING

    async def _show(self) -> None:
        await self.servicer.set(LIVENESS, _SERVING if self.alive else _NOT_SERVING)
        await self.servicer.set(READINESS, _SERVING if self.ready else _NOT_SERVING)
