"""helios.v1.Control: the operator's door to limits, telemetry, live prompts and drain.

Registered by `rpc.server` on the Control port, behind the token. It must not decide: it applies what it is
told, or passes on why it could not be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from helios_contract import wire
from helios_contract.limits import Limits
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import control_pb2_grpc

from helios_server.engine.engine import Engine
from helios_server.engine.limits import LimitsOutcome, check
from helios_server.errors import HeliosError, InvalidRequest, NotFound
from helios_server.rpc.calls import Context
from helios_server.rpc.pod import Pod
from helios_server.rpc.telemetry import telemetry_of

_DRAIN_LOOK_SECONDS = 0.2


class ControlService(control_pb2_grpc.ControlServicer):
    """`begin_drain` stops admission and returns at once; `drain_timeout` in seconds is the server's own."""

    def __init__(self, pod: Pod, begin_drain: Callable[[], Awaitable[None]], drain_timeout: float) -> None:
        self._pod = pod
        self._begin_drain = begin_drain
        self._drain_timeout = drain_timeout

    async def GetLimits(self, request: pb.GetLimitsRequest, context: Context) -> pb.GetLimitsResponse:
        engine = self._pod.engine
        if engine is None:
            return pb.GetLimitsResponse(limits=wire.limits_to_message(self._pod.limits))
        now = engine.telemetry()
        return pb.GetLimitsResponse(
            limits=wire.limits_to_message(now.limits),
            capacity=wire.capacity_to_message(now.capacity),
        )

    async def SetLimits(self, request: pb.SetLimitsRequest, context: Context) -> pb.SetLimitsResponse:
        engine = self._pod.loaded_engine()
        if not request.HasField("limits"):
            raise InvalidRequest("limits", "is missing", "Give the whole limits document")
        limits = wire.limits_from_message(request.limits)
        check(limits)
        if_generation = request.if_generation if request.HasField("if_generation") else None
        # Shielded: a caller that goes away does not undo what the engine is about to publish.
        outcome = await asyncio.shield(self._change(engine, limits, if_generation))
        return pb.SetLimitsResponse(
            limits=wire.limits_to_message(outcome.limits),
            capacity=wire.capacity_to_message(outcome.capacity),
            seconds=outcome.seconds,
            reprefilled=outcome.reprefilled,
        )

    async def _change(self, engine: Engine, limits: Limits, if_generation: int | None) -> LimitsOutcome:
        try:
            outcome = await asyncio.wrap_future(engine.set_limits(limits, if_generation))
        except HeliosError:
            self._pod.metrics.changed("refused", 0.0)
            raise
        self._pod.metrics.changed("applied", outcome.seconds)
        self._pod.serve(outcome.limits)
        return outcome

    async def GetTelemetry(self, request: pb.GetTelemetryRequest, context: Context) -> pb.Telemetry:
        engine = self._pod.engine
        if engine is None:
            return wire.telemetry_to_message(telemetry_of(self._pod, None))
        now = engine.telemetry()
        for alarm in now.alarms:
            self._pod.prompts.alarmed(alarm.since_request)
        return wire.telemetry_to_message(telemetry_of(self._pod, now))

    async def GetPrompts(self, request: pb.GetPromptsRequest, context: Context) -> pb.GetPromptsResponse:
        frozen = self._pod.prompts.get(request.digest)
        if frozen is None:
            problem = f"no set {request.digest} is kept" if request.digest else "no set is frozen yet"
            raise NotFound("digest", problem, "Ask for the set that GetTelemetry names")
        return pb.GetPromptsResponse(digest=frozen.digest, prompts=frozen.prompts)

    async def Drain(self, request: pb.DrainRequest, context: Context) -> None:
        deadline = time.monotonic() + (request.timeout_seconds or self._drain_timeout)
        await self._begin_drain()
        while self._pod.calls and time.monotonic() < deadline:
            await context.write(self._drain_status())
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        await context.write(self._drain_status())

    def _drain_status(self) -> pb.DrainStatus:
        load = self._pod.loaded_engine().load() if self._pod.engine else None
        return pb.DrainStatus(
            running=load.running if load else 0,
            waiting=load.waiting if load else 0,
            finished=self._pod.calls == 0,
        )
