"""Prometheus metrics of a serving pod: vLLM's suffixes, buckets and units under the prefix `helios_`.

Fed by `rpc/`: a request's events as they arrive, the engine's state at each scrape. It must not ask the
engine itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from helios_contract.serves import Precision
from helios_contract.telemetry import Capacity
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from helios_server.engine.request import FinishedEvent, TokensEvent

TTFT_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_SECONDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TOKENS = tuple(float(mantissa * 10**exponent) for exponent in range(6) for mantissa in (1, 2, 5))
CONFIDENCE = tuple(percent / 100 for percent in range(5, 100, 5))

_SERVED = ("model_name", "candidate", "layer_budget")


class _Tokens:
    """What counts tokens under the labels of what serves, looked up once: a token comes every few
    microseconds."""

    def __init__(self, metrics: Metrics) -> None:
        labels = metrics.labels
        self.ttft = metrics.ttft.labels(*labels)
        self.itl = metrics.itl.labels(*labels)
        self.generated = metrics.generation_tokens.labels(*labels)
        self.breaches = metrics.breaches.labels(*labels)
        self.confidence = metrics.confidence.labels(*labels)
        self._exit_layer = metrics.exit_layer
        self._model_name = labels[0]
        self._by_depth: dict[int, Counter] = {}

    def at(self, depth: int) -> Counter:
        """Tokens that so many layers made."""
        if depth not in self._by_depth:
            self._by_depth[depth] = self._exit_layer.labels(self._model_name, str(depth))
        return self._by_depth[depth]


class Metrics:
    """One registry. `serving` says under which labels what follows is counted."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._labels = (model_name, "", "0")
        self._precision = Precision()
        self._tokens: _Tokens | None = None
        self._joules = 0.0
        self._raised: Mapping[tuple[str, str], int] = {}
        self._audit_seconds = 0.0
        self.last_answer = 0.0
        """When one ended; Unix seconds."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._make_gauges()
        self._make_counters()
        self._make_histograms()

    # -- what happens

    def serving(self, candidate: str, layer_budget: int, precision: Precision) -> None:
        """From now on this candidate serves, at this many layers, in this precision."""
        self._labels = (self._model_name, candidate, str(layer_budget))
        self._precision = precision
        self._tokens = None

    @property
    def tokens(self) -> _Tokens:
        """For a token that has come now."""
        if self._tokens is None:
            self._tokens = _Tokens(self)
        return self._tokens

    def request(self, caller: str = "") -> RequestMetrics:
        """A request that has just arrived. caller: the name of its token, "" where none is asked for."""
        return RequestMetrics(self, caller)

    def called(self, caller: str, code: str) -> None:
        """A request of this caller ended with this gRPC code."""
        self.caller_requests.labels(self._model_name, caller, code).inc()

    def caller_tokens(self, caller: str, count: int) -> None:
        """So many were generated for this caller."""
        self.caller_generation_tokens.labels(self._model_name, caller).inc(count)

    def secrets_read(self, what: str, applied: bool) -> None:
        """Files of certificates or tokens were replaced: applied, or the old ones kept."""
        self.secret_reloads.labels(self._model_name, what, "applied" if applied else "kept").inc()

    def certificate(self, expires: float) -> None:
        """Unix seconds."""
        self.certificate_expiry.labels(self._model_name).set(expires)

    def rejected(self, code: str) -> None:
        """A request that ended with this gRPC code instead of an answer."""
        self.request_failure.labels(self._model_name, code).inc()

    def changed(self, result: str, seconds: float) -> None:
        """A change of limits: applied | refused, and how long it took."""
        self.limits_changes.labels(self._model_name, result).inc()
        if result == "applied":
            self.limits_change_seconds.labels(self._model_name).observe(seconds)

    def capacity(self, report: Capacity) -> None:
        """What the limits came to."""
        for gauge, value in (
            (self.layers_loaded, report.layers_loaded),
            (self.max_batch_size, report.max_batch_size),
            (self.kv_capacity_tokens, report.kv_capacity_tokens),
            (self.weight_bytes, report.weight_bytes),
            (self.kv_bytes, report.kv_bytes),
        ):
            gauge.labels(self._model_name).set(value)

    def load(self, running: int, waiting: int, kv_usage: float, ready: bool) -> None:
        """kv_usage: share of the KV cache in use, in [0, 1]."""
        for gauge, value in (
            (self.running, running),
            (self.waiting, waiting),
            (self.kv_usage, kv_usage),
            (self.ready, float(ready)),
        ):
            gauge.labels(self._model_name).set(value)
        self.layer_budget.clear()
        self.layer_budget.labels(*self._labels[:2]).set(float(self._labels[2]))
        weights, keys_and_values = self._precision.weight_dtype, self._precision.kv_cache_dtype
        self.precision.clear()
        self.precision.labels(*self._labels[:2], weights, keys_and_values).set(1)

    def energy(self, source: str, joules: float) -> None:
        """Since boot, from the meter of this name."""
        self.energy_joules.labels(self._model_name, source).inc(max(0.0, joules - self._joules))
        self._joules = joules

    def alarmed(self, raised: Mapping[tuple[str, str], int]) -> None:
        """Alarms since boot, by kind and direction."""
        for (kind, direction), count in raised.items():
            before = self._raised.get((kind, direction), 0)
            self.alarms.labels(self._model_name, kind, direction).inc(count - before)
        self._raised = raised

    def task_judged(self, passes: bool) -> None:
        """The probe had an answer to a task that should pass."""
        self.tasks_asked.labels(*self._labels).inc()
        self.tasks_passed.labels(*self._labels).inc(passes)

    def signals(self, breach_ratio: float, quality: float | None, agreement: float | None) -> None:
        """Shares in [0, 1]; quality and agreement are of the exit in use, None while nothing is audited."""
        self.breach_ratio.labels(self._model_name).set(breach_ratio)
        for gauge, value in ((self.audit_quality, quality), (self.audit_agreement, agreement)):
            if value is None:
                gauge.clear()
            else:
                gauge.labels(self._model_name).set(value)

    def loop_lag(self, seconds: float) -> None:
        """The event loop came to something so much later than it was due."""
        self.event_loop_lag.labels(self._model_name).observe(seconds)

    def audits_took(self, cpu_seconds: float) -> None:
        """Since boot."""
        self.audit_cpu_seconds.labels(self._model_name).inc(cpu_seconds - self._audit_seconds)
        self._audit_seconds = cpu_seconds

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    # -- the metrics

    def _make_gauges(self) -> None:
        gauge = self._gauge
        self.running = gauge("num_requests_running", "Requests in the batch.")
        self.waiting = gauge("num_requests_waiting", "Requests in the queue, waiting for a row of the batch.")
        self.kv_usage = gauge("kv_cache_usage_perc", "Share of the KV cache in use; 1 is all of it.")
        self.ready = gauge("ready", "1 when the pod serves, 0 while it loads, drains or has failed.")
        self.layer_budget = gauge(
            "layer_budget", "The layer budget: layers that serve.", ("model_name", "candidate")
        )
        self.precision = gauge(
            "precision_info",
            "1 for the precision of weights, and of keys and values, that serves.",
            ("model_name", "candidate", "weight_dtype", "kv_cache_dtype"),
        )
        self.layers_loaded = gauge("layers_loaded", "Layers in memory.")
        self.max_batch_size = gauge(
            "max_batch_size", "The largest batch size, in requests: what fits, or the limit."
        )
        self.batch_reached = gauge(
            "batch_size_reached", "Most requests in one step since the last change of limits."
        )
        self.kv_capacity_tokens = gauge("kv_capacity_tokens", "Tokens that the KV cache holds.")
        self.weight_bytes = gauge("weight_bytes", "Bytes of weights, exit heads included.")
        self.kv_bytes = gauge("kv_cache_bytes", "Bytes of the KV cache.")
        self.breach_ratio = gauge("breach_window_ratio", "Share of breaches among the last 100 tokens.")
        self.certificate_expiry = gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in Unix seconds.",
        )
        self.audit_quality = gauge(
            "audit_quality_ratio", "Full-depth bits over exit bits of the newest audits: 1 is full quality."
        )
        self.audit_agreement = gauge(
            "audit_agreement_ratio",
            "Share of audited tokens whose most likely choice is the same at full depth.",
        )

    def _make_counters(self) -> None:
        counter = self._counter
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of finished requests.", _SERVED)
        self.prefix_queries = counter(
            "prefix_cache_queries", "Prompt tokens that were looked for in the prefix cache.", _SERVED
        )
        self.prefix_hits = counter(
            "prefix_cache_hits", "Prompt tokens that were found in the prefix cache.", _SERVED
        )
        self.generation_tokens = counter("generation_tokens", "Tokens generated.", _SERVED)
        self.exit_layer = counter(
            "exit_layer", "Tokens by the depth that computed them.", ("model_name", "layer")
        )
        self.breaches = counter(
            "confidence_breaches", "Tokens with a confidence under the threshold of their exit.", _SERVED
        )
        self.preemptions = counter(
            "num_preemptions", "Times that a request was preempted and had to start again.", ("model_name",)
        )
        self.request_success = counter(
            "request_success",
            "Requests answered, by stop, length or abort.",
            ("model_name", "finished_reason"),
        )
        self.request_failure = counter(
            "request_failure", "Requests that ended with this gRPC status.", ("model_name", "code")
        )
        of_caller = ("model_name", "caller")
        self.caller_requests = counter(
            "caller_requests",
            "Requests by caller and by the gRPC status they ended with.",
            (*of_caller, "code"),
        )
        self.caller_prompt_tokens = counter(
            "caller_prompt_tokens", "Prompt tokens of a caller's finished requests.", of_caller
        )
        self.caller_generation_tokens = counter(
            "caller_generation_tokens", "Tokens generated for a caller.", of_caller
        )
        self.secret_reloads = counter(
            "secret_reloads",
            "New certificates or tokens: applied, or the old ones kept because the new cannot be used.",
            ("model_name", "what", "result"),
        )
        self.limits_changes = counter("limits_changes", "Changes of limits.", ("model_name", "result"))
        self.alarms = counter(
            "alarms", "Alarms of the change detectors.", ("model_name", "kind", "direction")
        )
        self.tasks_asked = counter(
            "task_probe_asked", "Tasks that the probe asked and had judged: those that should pass.", _SERVED
        )
        self.tasks_passed = counter("task_probe_passed", "Of those, the ones that passed.", _SERVED)
        self.audit_cpu_seconds = counter(
            "audit_cpu_seconds",
            "Upper bound of CPU seconds taken by audits: threads with other work count in full.",
            ("model_name",),
        )
        self.energy_joules = counter(
            "energy_joules", "Joules used, by source of the figure.", ("model_name", "source")
        )

    def _make_histograms(self) -> None:
        histogram = self._histogram
        self.ttft = histogram("time_to_first_token_seconds", "From arrival to the first token.", TTFT_SECONDS)
        self.itl = histogram(
            "inter_token_latency_seconds", "From one token of a request to the next.", ITL_SECONDS
        )
        self.e2e = histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", REQUEST_SECONDS
        )
        self.queue = histogram(
            "request_queue_time_seconds", "From arrival to a row of the batch.", REQUEST_SECONDS
        )
        self.prefill = histogram(
            "request_prefill_time_seconds", "From a row of the batch to the first token.", REQUEST_SECONDS
        )
        self.decode = histogram(
            "request_decode_time_seconds", "From the first to the last token.", REQUEST_SECONDS
        )
        self.request_prompt_tokens = histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self.request_generation_tokens = histogram(
            "request_generation_tokens", "Tokens generated for a request.", TOKENS
        )
        self.confidence = histogram("exit_confidence", "Confidence of tokens at their depth.", CONFIDENCE)
        self.limits_change_seconds = Histogram(
            "helios_limits_change_seconds",
            "From a change of limits to the step that runs under them.",
            ("model_name",),
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )

        self.event_loop_lag = Histogram(
            "helios_event_loop_lag_seconds",
            "How late the event loop runs a task that is due every 50 ms.",
            ("model_name",),
            buckets=LAG_SECONDS,
            registry=self.registry,
        )

    def _gauge(self, suffix: str, text: str, labels: Sequence[str] = ("model_name",)) -> Gauge:
        return Gauge(f"helios_{suffix}", text, labels, registry=self.registry)

    def _counter(self, suffix: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"helios_{suffix}", text, labels, registry=self.registry)

    def _histogram(self, suffix: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"helios_{suffix}", text, _SERVED, buckets=buckets, registry=self.registry)

    @property
    def labels(self) -> tuple[str, str, str]:
        """Of what serves now: model_name, candidate, layer_budget."""
        return self._labels


class RequestMetrics:
    """One request, from its arrival on. Times are seconds on the monotonic clock."""

    def __init__(self, metrics: Metrics, caller: str = "") -> None:
        self._metrics = metrics
        self._caller = caller
        self._last = time.monotonic()
        self._started = False

    def tokens(self, event: TokensEvent, now: float) -> None:
        """New tokens, which the engine made known at `now`."""
        tokens, count = self._metrics.tokens, len(event.token_ids)
        latency = tokens.itl if self._started else tokens.ttft
        latency.observe(now - self._last)
        self._last, self._started = now, True
        tokens.generated.inc(count)
        if self._caller:
            self._metrics.caller_tokens(self._caller, count)
        tokens.at(event.depth).inc(count)
        if breaches := sum(event.breaches):
            tokens.breaches.inc(breaches)
        for value in event.confidences:
            tokens.confidence.observe(value)

    def finished(self, event: FinishedEvent) -> None:
        """The whole answer."""
        metrics, labels, times = self._metrics, self._metrics.labels, event.times
        metrics.last_answer = time.time()
        metrics.request_success.labels(labels[0], event.reason.value).inc()
        metrics.preemptions.labels(labels[0]).inc(event.preemptions)
        metrics.prompt_tokens.labels(*labels).inc(event.prompt_tokens)
        if self._caller:
            metrics.caller_prompt_tokens.labels(labels[0], self._caller).inc(event.prompt_tokens)
        metrics.prefix_queries.labels(*labels).inc(event.prefix_queries)
        metrics.prefix_hits.labels(*labels).inc(event.prefix_hits)
        metrics.request_prompt_tokens.labels(*labels).observe(event.prompt_tokens)
        metrics.request_generation_tokens.labels(*labels).observe(len(event.output_ids))
        metrics.e2e.labels(*labels).observe(times.finished - times.arrived)
        if times.scheduled is not None:
            metrics.queue.labels(*labels).observe(times.scheduled - times.arrived)
        if times.scheduled is not None and times.first_token is not None:
            metrics.prefill.labels(*labels).observe(times.first_token - times.scheduled)
            metrics.decode.labels(*labels).observe(times.finished - times.first_token)
