"""A serving pod from bound ports to the last drained stream.

Run by `serve`. The order is the point: ports are bound before the model is read, so that a port in use costs
nothing and Control can be asked meanwhile; readiness waits for a real generation; a drain turns readiness
off, then lets every connection go, then waits for the streams. It must not know of arguments, files or
signals.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from helios_contract.limits import Limits
from helios_proto import addresses
from helios_proto.inference import open_inference_pb2, open_inference_pb2_grpc
from helios_proto.v1 import control_pb2_grpc, generation_pb2, generation_pb2_grpc

from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FailedEvent, GenerationRequest
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import Draining, InvalidRequest
from helios_server.rpc import loop_lag, tls
from helios_server.rpc.admission import RequireCaller
from helios_server.rpc.auth import RequireToken, Token
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.control import ControlService
from helios_server.rpc.door import Door
from helios_server.rpc.errors import AnswerErrors
from helios_server.rpc.generation import GenerationService
from helios_server.rpc.health import Health, Phase
from helios_server.rpc.http import HttpServer
from helios_server.rpc.oip.service import InferenceService, OtherCalls
from helios_server.rpc.openai.door import OpenAiDoor
from helios_server.rpc.pages import pages
from helios_server.rpc.pod import Pod
from helios_server.rpc.prober import Prober
from helios_server.rpc.receiving import Receive
from helios_server.rpc.request_log import RequestLog
from helios_server.rpc.stream import Stream
from helios_server.rpc.tls import Certificates
from helios_server.rpc.traced import AcceptTrace
from helios_server.telemetry.energy import EnergyMeter
from helios_server.telemetry.metrics import Metrics
from helios_server.telemetry.prompts import LivePrompts
from helios_server.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SERVICES = (
    generation_pb2.DESCRIPTOR.services_by_name["Generation"],
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
"""For applications."""
_HEALTH = "grpc.health.v1.Health"
_WARM_UP_TOKENS = 4
_LAST_BYTES_SECONDS = 1.0
_WATCH_SECONDS = 0.5
LOOK_SECONDS = 1.0
"""Between two looks at the files of certificates and tokens."""


@dataclass(frozen=True)
class Ports:
    """TCP ports, 0 for a free one: generation and HTTP for applications (None: no HTTP), control for the
    operator, metrics for probes and Prometheus."""

    port: int = 8033
    control_port: int = 8034
    metrics_port: int = 8035
    http_port: int | None = 8000


@dataclass(frozen=True)
class Access:
    """Who may come to the doors for applications, and how. certificates: None for clear text; callers: None
    for everybody; reflection: whether a client may ask for the services' descriptions."""

    certificates: Certificates | None = None
    callers: CallerTokens | None = None
    reflection: bool = True


class PodServer:
    """`open`, `load`, then `drain` and `close`; or `close` at any time. drain_timeout: seconds; tasks_file:
    what limits may ask to be asked; tracing: None for no spans; request_log: None for none."""

    def __init__(
        self,
        model_name: str,
        config: EngineConfig,
        limits: Limits,
        token: Token | None = None,
        energy: EnergyMeter | None = None,
        drain_timeout: float = 300.0,
        access: Access = Access(),
        tasks_file: Path | None = None,
        tracing: Tracing | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        services = (each.full_name for each in _SERVICES)
        beside = (_HEALTH, *([reflection.SERVICE_NAME] if access.reflection else []))
        health, prompts = Health(services, (*beside, "helios.v1.Control")), LivePrompts(limits.live_prompts)
        self.pod = Pod(model_name, limits, health, Metrics(model_name), prompts, energy, tracing, request_log)
        if request_log:
            request_log.boot_id = self.pod.boot_id
        self._config = config
        self._drain_timeout = drain_timeout
        self._access = access
        certificates, callers = access.certificates, access.callers
        admission = [RequireCaller(callers, self.pod.metrics)] if callers else []
        traced = [AcceptTrace(tracing)] if tracing else []
        self._generation = Door(
            [Receive(self.pod), *admission, *traced, AnswerErrors()],
            certificates.context(tls.GRPC) if certificates else None,
        )
        guards = [RequireToken(token)] if token else []
        self._control = Door([Receive(self.pod), *guards, AnswerErrors()])
        self._probes = HttpServer(pages(self.pod))
        self._openai = OpenAiDoor(self.pod, callers, certificates)
        self._letting_go: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._lag: asyncio.Task[None] | None = None
        self._prober = Prober(self.pod, tasks_file)
        self._probing: asyncio.Task[None] | None = None
        self._register()

    def _register(self) -> None:
        generation, control = self._generation.server, self._control.server
        generation_pb2_grpc.add_GenerationServicer_to_server(GenerationService(self.pod), generation)
        inference = InferenceService(self.pod)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, generation)
        generation.add_generic_rpc_handlers([OtherCalls()])
        service = ControlService(self.pod, self.begin_drain, self._drain_timeout)
        control_pb2_grpc.add_ControlServicer_to_server(service, control)
        for server in (generation, control):
            health_pb2_grpc.add_HealthServicer_to_server(self.pod.health.servicer, server)
        if self._access.reflection:
            known = (*(each.full_name for each in _SERVICES), _HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(known, generation)

    # -- start

    async def open(self, host: str, ports: Ports) -> Ports:
        """Binds the ports and answers on them. InvalidRequest names the one in use; none is bound then."""
        await self.pod.health.start()
        self._following = asyncio.create_task(self._follow_secrets())
        self._lag = asyncio.create_task(loop_lag.watch(self.pod.metrics))
        try:
            return Ports(
                metrics_port=await _bind("metrics-port", self._probes.listen, host, ports.metrics_port),
                control_port=await _bind("control-port", self._control.open, host, ports.control_port),
                http_port=await self._open_http(host, ports.http_port),
                port=await _bind("port", self._generation.open, host, ports.port),
            )
        except InvalidRequest:
            await self.close()
            raise

    async def _open_http(self, host: str, port: int | None) -> int | None:
        if port is None:
            return None
        return await _bind("http-port", self._openai.open, host, port, "0 for no HTTP")

    async def load(self) -> None:
        """Loads the model, warms it up, and serves. HeliosError when it cannot."""
        limits = self.pod.limits
        self.pod.engine = await _in_thread(lambda: Engine.start(self._config, limits))
        self.pod.serve(self.pod.engine.telemetry().limits)
        await self.pod.health.become(Phase.WARMING)
        await self._warm_up(self.pod.engine)
        await self.pod.health.become(Phase.SERVING)
        self._probing = asyncio.create_task(self._prober.run())
        info = self.pod.engine.info()
        logger.info(
            "%s serves %s at %d of %d layers",
            self.pod.model_name,
            info.candidate,
            info.layer_budget,
            info.total_layers,
        )

    async def _warm_up(self, engine: Engine) -> None:
        """A real generation, so that readiness is a fact; it is counted nowhere."""
        stream = Stream(self.pod.mailbox)
        sampling = SamplingParams(max_tokens=_WARM_UP_TOKENS, ignore_eos=True)
        prompt = tuple(range(_WARM_UP_TOKENS))
        request = GenerationRequest(f"warm-up-{uuid.uuid4().hex}", prompt, sampling, counted=False)
        await self.pod.ask(engine.submit, request, stream.on_event)
        async for event in stream:
            if isinstance(event, FailedEvent):
                raise event.error

    async def watch(self) -> None:
        """Looks after the pod while it serves; returns when the engine has failed."""
        engine = self.pod.loaded_engine()
        while engine.failed is None:
            await asyncio.sleep(_WATCH_SECONDS)
            await self.pod.health.judge(self.pod.hung())  # nothing is ended: whoever probes it, restarts it
            if self.pod.energy is not None:
                self.pod.energy.joules()  # often enough that no wrap of its counters is missed
            self._log_audits()
        logger.error("the engine failed: %s", engine.failed)
        await self.pod.health.become(Phase.FAILED)

    def _log_audits(self) -> None:
        if self.pod.request_log and self.pod.engine:
            self.pod.request_log.audits(self.pod.engine.telemetry().audits)

    async def _follow_secrets(self) -> None:
        """Certificates and tokens that are rotated, from the first connection to the last."""
        certificates, callers, metrics = self._access.certificates, self._access.callers, self.pod.metrics
        while certificates or callers:
            if certificates:
                metrics.certificate(certificates.expires.timestamp())
            for what, secret in (("certificate", certificates), ("tokens", callers)):
                applied = secret.look() if secret else None
                if applied is not None:
                    metrics.secrets_read(what, applied)
            await asyncio.sleep(LOOK_SECONDS)

    # -- end

    async def begin_drain(self) -> None:
        """Stops admission and returns; calls in flight go on. Done once, however often it is asked for."""
        if self._letting_go is None:
            await self.pod.health.become(Phase.DRAINING)
            self._letting_go = asyncio.create_task(self._generation.let_go(*_SERVICES))

    async def drain(self) -> None:
        """Returns when every connection is let go and every stream has ended, or the drain's time is over."""
        await self.begin_drain()
        try:
            async with asyncio.timeout(self._drain_timeout):
                await self._drained()
        except TimeoutError:
            logger.warning(
                "%d calls still run after %s s; they are ended", self.pod.calls, self._drain_timeout
            )

    async def _drained(self) -> None:
        if self._letting_go is not None:
            await asyncio.shield(self._letting_go)
        while self.pod.calls:
            await asyncio.sleep(0.05)
        await self._openai.gone()

    async def close(self) -> None:
        """Ends what still runs, with the word to ask another server, frees the ports and stops the engine."""
        if self._probing is not None:
            self._probing.cancel()
        if self.pod.engine is not None:
            self.pod.engine.fail(Draining("server", "was stopped", "Send the request to another server"))
        await self._generation.close(_LAST_BYTES_SECONDS)
        await self._control.close(_LAST_BYTES_SECONDS)
        await self._openai.close()
        await self._probes.close()
        for beside in (self._following, self._lag):
            if beside is not None:
                beside.cancel()
        self._log_audits()
        if self.pod.engine is not None:
            await _in_thread(self.pod.engine.stop)
        if self.pod.tracing is not None:
            await _in_thread(self.pod.tracing.close)
        self.pod.close()


async def _bind(
    field: str,
    listen: Callable[[str, int], Awaitable[int]],
    host: str,
    port: int,
    zero: str = "0 for a free one",
) -> int:
    try:
        return await listen(host, port)
    except OSError as error:
        problem = f"{addresses.join(host, port)} cannot be bound ({error.strerror or error})"
        raise InvalidRequest(field, problem, f"Choose another --{field}, or {zero}") from None


async def _in_thread(work: Callable[[], T]) -> T:
    """On a thread of its own that does not hold up the end of the process, as the pool's would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            loop.call_soon_threadsafe(_fail, done, error)
        else:
            loop.call_soon_threadsafe(_succeed, done, result)

    threading.Thread(target=run, name="helios-work", daemon=True).start()
    return await done


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.cancelled():
        done.set_result(result)


def _fail(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.cancelled():
        done.set_exception(error)
