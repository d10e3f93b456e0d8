"""Spans of requests, for a collector that speaks OTLP: off unless asked for, and never in a request's way.

Made by `serve`. `rpc.traced` tells it where a call belongs, `rpc.conversation` what becomes of a request; its
spans are made when it has ended, and sent by a thread of the library's, which drops what a collector does not
take. OpenTelemetry (extra `otel`) is imported here, when it is asked for. No text of a prompt or of an answer
may become an attribute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from helios_server.engine.request import FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.telemetry import Load
from helios_server.errors import InvalidRequest

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

TEXT, CHAT = "text_completion", "chat"
"""Operations, as the semantic conventions of generative AI name them."""
_FLAG = "otlp-endpoint"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SERVICE = "helios"
_PATIENCE_SECONDS = 3.0
"""For the last spans to be sent, at the end."""
_PARENT: ContextVar[Context | None] = ContextVar("parent", default=None)
"""Of the call of this task: the span that its client named."""


class Tracing:
    """`request` for each one; `close` at the end. provider: of OpenTelemetry's SDK, its processors added."""

    def __init__(self, provider: TracerProvider, model_name: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.model_name = model_name
        self.tracer = provider.get_tracer("helios_server")
        self._provider = provider
        self._headers = TraceContextTextMapPropagator()

    def accept(self, carrier: Mapping[str, str]) -> None:
        """The headers of a call, names in lower case: what its task does belongs to the span that
        `traceparent` names. One that is malformed, or none, begins a trace of its own."""
        _PARENT.set(self._headers.extract(carrier))

    def request(
        self, request: GenerationRequest, operation: str, caller: str, load: Callable[[], Load]
    ) -> RequestTrace:
        """One that is handed to the engine now. caller: the name of its token, or ""."""
        return RequestTrace(self, request, operation, caller, load)

    def close(self) -> None:
        """Sends what waits; blocks for a few seconds at most, whatever the collector does."""
        sending = threading.Thread(target=self._provider.shutdown, name="helios-spans", daemon=True)
        sending.start()
        sending.join(_PATIENCE_SECONDS)


class RequestTrace:
    """One request's spans: itself, and below it queue, prefill and decode."""

    def __init__(
        self,
        tracing: Tracing,
        request: GenerationRequest,
        operation: str,
        caller: str,
        load: Callable[[], Load],
    ) -> None:
        self._tracing = tracing
        self._parent = _PARENT.get()
        self._load = load
        self._arrived = time.monotonic()
        self._operation = operation
        self._about = _asked(request, tracing.model_name, operation, caller)
        self._batch: dict[str, int] = {}
        self._ended = False

    def tokens(self, _: TokensEvent) -> None:
        """Looks at the batch, once: when the first tokens are heard of. It was in there itself."""
        if not self._batch:
            load = self._load()
            running = max(1, load.running)
            self._batch = {"helios.batch_size": running, "helios.max_batch_size": load.max_batch_size}

    def finished(self, event: FinishedEvent) -> None:
        """The whole answer, or what there was of it when its client went away."""
        if self._end():
            return
        times, at = event.times, _wall_clock()
        root = self._begin(at(times.arrived), self._about | _answered(event) | self._batch)
        first, end = times.first_token, times.finished
        scheduled = times.scheduled if times.scheduled is not None else end
        self._stage(root, "queue", at(times.arrived), at(scheduled), {})
        if times.scheduled is not None:
            computed = {
                "helios.prefix_hits": event.prefix_hits,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
            }
            self._stage(root, "prefill", at(scheduled), at(end if first is None else first), computed)
        if first is not None:
            self._stage(root, "decode", at(first), at(end), _decoded(event) | self._batch)
        root.end(at(end))

    def failed(self, code: str) -> None:
        """It ended without an answer, with this gRPC status."""
        if self._end():
            return
        from opentelemetry.trace import StatusCode

        at = _wall_clock()
        root = self._begin(at(self._arrived), self._about | self._batch | {"error.type": code})
        root.set_status(StatusCode.ERROR)
        root.end(at(time.monotonic()))

    def _end(self) -> bool:
        """Whether it had ended before."""
        before, self._ended = self._ended, True
        return before

    def _begin(self, start: int, attributes: Mapping[str, Any]) -> Span:
        from opentelemetry.trace import SpanKind

        name = f"{self._operation} {self._tracing.model_name}"
        return self._tracing.tracer.start_span(
            name, self._parent, SpanKind.SERVER, attributes=attributes, start_time=start
        )

    def _stage(self, root: Span, name: str, start: int, end: int, attributes: Mapping[str, Any]) -> None:
        from opentelemetry.trace import set_span_in_context

        below = set_span_in_context(root)
        self._tracing.tracer.start_span(name, below, attributes=attributes, start_time=start).end(end)


def _wall_clock() -> Callable[[float], int]:
    """Takes seconds on the monotonic clock, gives nanoseconds since 1970."""
    ahead = time.time() - time.monotonic()
    return lambda seconds: int((seconds + ahead) * 1e9)


def open_tracing(endpoint: str | None, model_name: str, environment: Mapping[str, str]) -> Tracing | None:
    """To the endpoint, else where OpenTelemetry's own variables say; None where neither does.

    InvalidRequest for an endpoint that cannot be used, or without the library. What the environment asks for
    in vain is said in the log and not done, as OpenTelemetry demands: variables are often set for others.
    """
    if endpoint is None and not _wanted(environment):
        return None
    if endpoint is not None:
        _check(endpoint)
    try:
        return Tracing(_provider(endpoint, environment), model_name)
    except ImportError as error:
        problem = f"OpenTelemetry is not installed ({error})"
        refused = InvalidRequest(_FLAG, problem, "Install helios-serve[otel]")
    except Exception as error:  # what its own variables hold, in the words of whatever reads them
        problem = f"OpenTelemetry cannot be set up ({error or type(error).__name__})"
        refused = InvalidRequest(_FLAG, problem, "Correct the variables OTEL_…")
    if endpoint is not None:
        raise refused
    logger.warning("the environment asks for spans, none are sent: %s", refused)
    return None


def _provider(endpoint: str | None, environment: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = "OTEL_SERVICE_NAME" in environment or f"{SERVICE_NAME}=" in attributes
    resource = Resource.create({} if named else {SERVICE_NAME: _SERVICE})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def _wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables turn it on, by an endpoint or by naming the exporter."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    asked = exporter == "otlp" or any(environment.get(name) for name in _ENDPOINTS)
    if not asked or exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    if exporter not in ("", "otlp") or protocol != "grpc":
        what = exporter if exporter not in ("", "otlp") else protocol
        logger.warning(
            "the environment asks for spans by %s, none are sent: only OTLP over gRPC is spoken", what
        )
        return False
    return True


def _check(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or parts.query or parts.fragment:
        fix = "Give http://HOST:PORT of a collector's gRPC port, or https:// for TLS"
        raise InvalidRequest(_FLAG, f"{endpoint!r} is no address of a collector", fix)


def _asked(request: GenerationRequest, model_name: str, operation: str, caller: str) -> dict[str, Any]:
    sampling = request.sampling
    given = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _SERVICE,
        "gen_ai.request.model": model_name,
        "gen_ai.response.id": request.request_id.removeprefix(f"{caller}/"),
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.seed": sampling.seed if sampling.seed is None or sampling.seed < 2**63 else None,
        "gen_ai.usage.input_tokens": len(request.prompt_ids),
        "helios.request.layer_budget": request.depth or None,
        "helios.caller": caller or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _answered(event: FinishedEvent) -> dict[str, Any]:
    times = event.times
    given: dict[str, Any] = {
        "gen_ai.usage.output_tokens": len(event.output_ids),
        "gen_ai.usage.cache_read.input_tokens": event.prefix_hits,
        "gen_ai.response.finish_reasons": (event.reason.value,),
        "helios.preemptions": event.preemptions,
        **_decoded(event),
    }
    if event.spans:
        given["gen_ai.response.model"] = event.spans[-1].served.candidate
    if times.first_token is not None:
        given["gen_ai.response.time_to_first_chunk"] = times.first_token - times.arrived
    return given


def _decoded(event: FinishedEvent) -> dict[str, Any]:
    """By what the tokens were made: what served last, and every depth in turn where a change fell between."""
    if not event.spans:
        return {}
    served = event.spans[-1].served
    return {
        "helios.layer_budget": served.depth,
        "helios.layer_budgets": tuple(span.served.depth for span in event.spans),
        "helios.mean_layers": event.mean_layers,
        "helios.mean_confidence": event.mean_confidence,
        "helios.weight_dtype": served.weight_dtype,
        "helios.kv_cache_dtype": served.kv_cache_dtype,
    }
