"""What could be served: every candidate at every depth, with the batch that fits and what that batch makes of
the workload.

Called by `select` and `reassess`. Memory and time come from the laws in `helios_server.planning`, quality
from the evidence given. Every figure stands beside its pessimistic bound. It must not choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, exp, log

from helios_contract.results import EnergyCost, MemoryFacts, StepTimeFit
from helios_contract.telemetry import Telemetry
from helios_server.planning.memory import MIB, capacity, limit_for_rows
from helios_server.planning.timing import Prediction, StepPoint, Workload, predict, step_ns

from helios_operator.api.reasons import Reason
from helios_operator.api.rows import TimingRow
from helios_operator.api.types import DeploymentSpec
from helios_operator.decide.facts.candidates import Contender, Key, backbones, legal_depths
from helios_operator.decide.facts.evidence import Evidence
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.snapshot import Snapshot


@dataclass(frozen=True)
class Performance:
    """Of the spec's workload in steady state."""

    expected: Prediction
    """The mean; what is below are pessimistic bounds at the SLO's percentile."""
    tokens_per_second: float
    ttft_ms: float
    itl_ms: float
    e2e_ms: float
    latency_ms: float
    """What the latency objective compares: a whole request, at the load that the spec names, or alone
    when it names none (a bigger batch is no worse a model)."""
    joules_per_megatoken: float | None = None
    """None: not measured."""


@dataclass(frozen=True)
class Option:
    """A candidate at a depth in layers."""

    contender: Contender
    layer_budget: int
    max_batch_size: int
    """The most rows that serve it well."""
    performance: Performance | None
    """None: no memory for one row, or not timed."""
    quality: Estimate | None = None
    """None: not known on this evidence."""
    agreement: Estimate | None = None
    verdict: Verdict = field(default=Verdict(True, "", ""))
    """Why it is out before any SLO is asked: no memory, not timed."""

    @property
    def key(self) -> tuple[Key, int]:
        return (self.contender.key, self.layer_budget)

    @property
    def is_full_depth(self) -> bool:
        return bool(self.contender.resolved and self.contender.resolved.num_layers == self.layer_budget)

    @property
    def service(self) -> tuple[str, str, int]:
        """What a caller gets: at full depth heads do not matter."""
        resolved = self.contender.resolved
        if resolved is None:
            return ("", "", self.layer_budget)
        return (resolved.backbone, "" if self.is_full_depth else resolved.exits_digest, self.layer_budget)

    def __str__(self) -> str:
        return f"{self.contender.name} at {self.layer_budget}"


@dataclass(frozen=True)
class Bench:
    """All that options are built from, once per pass. Serving tells two of them better than a profile:
    `pace` and `process_start_bytes`."""

    spec: DeploymentSpec
    memory_mib: int
    """Of one pod; 0: not known."""
    contenders: tuple[Contender, ...]
    pace: float = 1.0
    """How much longer steps last here than profiled: a factor."""
    process_start_bytes: int = 0
    """What a serving process holds beside the model; 0: no pod told yet."""
    policy: Policy = DEFAULT
    _known: dict[tuple[str, Key, int], Option] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Options on no evidence, each computed once: what takes time here is the same on any evidence."""

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        contenders: tuple[Contender, ...],
        pods: Sequence[Telemetry] = (),
        serving: Contender | None = None,
        policy: Policy = DEFAULT,
    ) -> Bench:
        """`pods`: of those that serve; `serving`: what they serve, if it is a candidate."""
        return cls(
            spec=snapshot.deployment.spec,
            memory_mib=memory_mib(snapshot),
            contenders=contenders,
            pace=_pace(serving, pods, policy),
            process_start_bytes=max((pod.capacity.process_start_bytes for pod in pods), default=0),
            policy=policy,
        )

    def options(self, evidence: Evidence | None) -> tuple[Option, ...]:
        return tuple(
            self.option(contender, layer, evidence)
            for contender in self.contenders
            if contender.measurable
            for layer in legal_depths(contender, self.spec.limits.layer_budget)
        )

    def option(self, contender: Contender, layer: int, evidence: Evidence | None) -> Option:
        place = (contender.name, contender.key, layer)
        if place not in self._known:
            self._known[place] = self._without_evidence(contender, layer)
        known = self._known[place]
        if evidence is None:
            return known
        estimate, agreement = evidence.quality(contender, layer), evidence.agreement(contender, layer)
        return replace(known, quality=estimate, agreement=agreement)

    def _without_evidence(self, contender: Contender, layer: int) -> Option:
        timing = contender.timing
        if timing is None or timing.fit is None or timing.memory is None:
            return Option(contender, layer, 0, None, verdict=_untimed(contender))
        rows = self.rows(contender, layer)
        if rows == 0:
            return Option(contender, layer, 0, None, verdict=self._no_memory(contender, layer))
        batch, performance = self._best_batch(contender, timing, layer, rows)
        return Option(contender, layer, batch, performance)

    def rows(self, contender: Contender, layer: int) -> int:
        """Rows of the workload that fit at this depth, at most the spec's; 0 when unknown or none does."""
        timing = contender.timing
        if timing is None or timing.memory is None or not self.memory_mib:
            return 0
        workload = self.spec.workload
        return capacity(
            self._facts(timing.memory),
            limit_bytes=self.memory_mib * MIB,
            layers=layer,
            tokens_per_request=workload.isl + workload.osl,
            exit_bytes=self._exit_bytes(contender),
            audit_bytes=self._audit_bytes(timing),
            max_rows=self.spec.limits.max_batch_size or 0,
        ).rows

    def needed_mib(self, contender: Contender, layer: int) -> int:
        """For one row."""
        timing, workload = contender.timing, self.spec.workload
        if timing is None or timing.memory is None:
            return 0
        needed = limit_for_rows(
            self._facts(timing.memory),
            layers=layer,
            rows=1,
            tokens_per_request=workload.isl + workload.osl,
            exit_bytes=self._exit_bytes(contender),
            audit_bytes=self._audit_bytes(timing),
        )
        return ceil(needed / MIB)

    def _facts(self, profiled: MemoryFacts) -> MemoryFacts:
        return replace(profiled, process_start_bytes=self.process_start_bytes or profiled.process_start_bytes)

    def _no_memory(self, contender: Contender, layer: int) -> Verdict:
        needed = self.needed_mib(contender, layer)
        if not self.memory_mib:
            message = (
                "how much memory a pod has is not known: neither its node's labels tell nor its timing; set "
                "limits.memoryMiB"
            )
            return Verdict(False, Reason.NOT_PROFILED, message, {"neededMiB": needed})
        message = f"needs {needed} MiB at {layer} layers, {self.memory_mib} MiB given"
        return Verdict(
            False, Reason.NOT_ENOUGH_MEMORY, message, {"neededMiB": needed, "givenMiB": self.memory_mib}
        )

    def _exit_bytes(self, contender: Contender) -> int:
        """Every bundle of the backbone is held: the audit scores them side by side."""
        timing, resolved = contender.timing, contender.resolved
        if timing is None or resolved is None:
            return 0
        family = backbones(self.contenders).get(resolved.backbone, (contender,))
        bundles = {c.resolved.exits_digest: c.resolved.head_kind for c in family if c.resolved}
        return sum(timing.exit_bytes.get(kind, 0) for digest, kind in bundles.items() if digest)

    def _audit_bytes(self, timing: TimingRow) -> int:
        return timing.audit_bytes if self.spec.reassessment.audit_percent else 0

    def _best_batch(
        self, contender: Contender, timing: TimingRow, layer: int, rows: int
    ) -> tuple[int, Performance]:
        """The largest batch that meets the latency SLO, else the one that misses it least. Halving is fine
        enough: half the rows is nearly half the time per step. At the profiled pace, so that the batch that
        serves does not follow every breath of the machine."""
        excess: dict[int, float] = {}
        for batch in _halvings(rows):
            excess[batch] = latency_excess(
                self._performance(contender, timing, layer, batch, pace=1.0), self.spec
            )
            if excess[batch] <= 1:
                break
        best = min(excess, key=lambda batch: (max(1.0, excess[batch]), -batch))
        return best, self._performance(contender, timing, layer, best, self.pace)

    def _performance(
        self, contender: Contender, timing: TimingRow, layer: int, batch: int, pace: float
    ) -> Performance:
        fit, memory, resolved = timing.fit, timing.memory, contender.resolved
        if fit is None or memory is None or resolved is None:
            raise ValueError(f"{contender.name} has no timing")
        kind = "bare" if layer == resolved.num_layers else resolved.head_kind
        workload, steps = workload_of(self.spec), memory.step_tokens

        def predicted(load: Workload) -> Prediction:
            mean = predict(fit, layers=layer, head_kind=kind, batch=batch, workload=load, step_tokens=steps)
            return _scaled(mean, pace)

        mean = predicted(workload)
        names_load = workload.concurrency or workload.request_rate
        compared = mean if names_load else predicted(replace(workload, concurrency=1))
        error = 1 + fit.error_percent / 100
        slow = _slow_step(fit, layer, kind, mean.rows, workload, steps, self.spec.slo.percentile) * pace / 1e6
        return Performance(
            expected=mean,
            tokens_per_second=mean.tokens_per_second / error,
            ttft_ms=mean.ttft_ms * error,
            itl_ms=max(mean.itl_ms, slow) * error,
            e2e_ms=mean.e2e_ms * error,
            latency_ms=compared.e2e_ms * error,
            joules_per_megatoken=_joules(timing.energy, layer, mean.rows, error),
        )


def workload_of(spec: DeploymentSpec) -> Workload:
    workload = spec.workload
    return Workload(workload.isl, workload.osl, workload.concurrency, workload.request_rate)


def memory_mib(snapshot: Snapshot) -> int:
    """What one pod may spend: what is given, or what its hardware is said to have, and no more than Timing
    Jobs found there. 0: nobody knows yet."""
    said = snapshot.deployment.spec.limits.memory_mib or snapshot.hardware.memory_mib
    found = [
        row.device_memory_bytes // MIB
        for row in snapshot.timings
        if row.device_memory_bytes and row.identity.hardware == snapshot.hardware
    ]
    return min([*found, *([said] if said else [])], default=0)


def latency_excess(performance: Performance, spec: DeploymentSpec) -> float:
    """Largest ratio of a pessimistic latency to its target; at most 1 meets them all, 0: none is asked."""
    slo = spec.slo
    pairs = (
        (performance.ttft_ms, slo.ttft_ms),
        (performance.itl_ms, slo.itl_ms),
        (performance.e2e_ms, slo.e2e_latency_ms),
    )
    return max((value / target for value, target in pairs if target), default=0.0)


def _pace(serving: Contender | None, pods: Sequence[Telemetry], policy: Policy) -> float:
    if serving is None or serving.resolved is None or serving.timing is None or serving.timing.fit is None:
        return 1.0
    kind = serving.resolved.head_kind
    steps = [point for pod in pods for point in _points(pod, kind)]
    return measured_pace(serving.timing.fit, steps, policy)


def _points(pod: Telemetry, head_kind: str) -> Iterator[StepPoint]:
    """A pod's steps; those at full depth went through the model's own head."""
    for step in pod.steps:
        yield StepPoint(
            layers=step.layers,
            rows=step.rows,
            kv_tokens=step.kv_tokens,
            sampled=step.sampled,
            head_kind="bare" if step.layers == pod.capacity.total_layers else head_kind,
            step_ns=step.mean_us * 1000,
            weight=step.count,
        )


def measured_pace(fit: StepTimeFit, steps: Sequence[StepPoint], policy: Policy = DEFAULT) -> float:
    """Geometric mean of measured / predicted step times over serving steps, within bounds: more than that is
    a neighbour's noise, or a cold start. One factor for all backbones: it is the machine that is slower
    today."""
    weight = sum(point.weight for point in steps)
    if weight < policy.min_steps:
        return 1.0
    drift = sum(
        point.weight * log(max(1e-3, point.step_ns / max(1.0, _predicted(fit, point)))) for point in steps
    )
    return min(policy.max_pace, max(1 / policy.max_pace, exp(drift / weight)))


def _predicted(fit: StepTimeFit, point: StepPoint) -> float:
    if point.head_kind not in fit.heads:
        return point.step_ns
    return step_ns(
        fit,
        layers=point.layers,
        rows=point.rows,
        kv_tokens=point.kv_tokens,
        sampled=point.sampled,
        head_kind=point.head_kind,
    )


def _untimed(contender: Contender) -> Verdict:
    if contender.timing_failed:
        return Verdict(False, Reason.PROFILE_FAILED, f"timing failed: {contender.timing_failed.message}")
    return Verdict(False, Reason.NOT_PROFILED, "not timed yet")


def _halvings(rows: int) -> Iterator[int]:
    while rows >= 1:
        yield rows
        rows //= 2


def _scaled(mean: Prediction, pace: float) -> Prediction:
    return Prediction(
        rows=mean.rows,
        tokens_per_second=mean.tokens_per_second / pace,
        itl_ms=mean.itl_ms * pace,
        ttft_ms=mean.ttft_ms * pace,
        e2e_ms=mean.e2e_ms * pace,
    )


def _slow_step(
    fit: StepTimeFit,
    layers: int,
    head_kind: str,
    rows: float,
    workload: Workload,
    step_tokens: int,
    percentile: int,
) -> float:
    """Nanoseconds of the step at the percentile: one that carries a whole prefill chunk, when at least that
    many steps do, else the mean step (0)."""
    chunks = ceil(workload.isl / step_tokens)
    if rows * chunks / workload.osl < 1 - percentile / 100:
        return 0.0
    return step_ns(
        fit,
        layers=layers,
        rows=max(rows, min(step_tokens, rows + workload.isl)),
        kv_tokens=rows * (workload.isl + workload.osl / 2),
        sampled=rows,
        head_kind=head_kind,
    )


def _joules(energy: EnergyCost | None, layer: int, rows: float, error: float) -> float | None:
    """Of the nearest measured number of rows, linear in the layers between measured depths."""
    if energy is None or not energy.joules_per_megatoken:
        return None
    points = energy.joules_per_megatoken
    nearest = min({r for _, r in points}, key=lambda r: (abs(r - rows), r))
    by_depth = sorted((k, joules) for (k, r), joules in points.items() if r == nearest)
    below = max((p for p in by_depth if p[0] <= layer), default=by_depth[0])
    above = min((p for p in by_depth if p[0] >= layer), default=by_depth[-1])
    if above[0] == below[0]:
        return below[1] * max(1.0, layer / by_depth[-1][0]) * error
    share = (layer - below[0]) / (above[0] - below[0])
    return (below[1] + share * (above[1] - below[1])) * error
