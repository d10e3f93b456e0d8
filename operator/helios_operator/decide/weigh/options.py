"""What could be served: every candidate in every precision at every depth, with the batch that fits and what
that batch makes of the workload.

Called by `select` and `reassess`. Memory and time come from the laws in `helios_server.planning`, quality
from the evidence given. Every figure stands beside its pessimistic bound. It must not choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from helios_contract import VERSION
from helios_contract.results import MemoryFacts
from helios_contract.serves import REFERENCE, Precision
from helios_contract.telemetry import Telemetry
from helios_server.planning.memory import MIB, Capacity, capacity, largest_request, limit_for_rows
from helios_server.planning.timing import Prediction, Workload, predict

from helios_operator.api.reasons import Reason
from helios_operator.api.rows import TimingRow
from helios_operator.api.types import DeploymentSpec
from helios_operator.decide.facts import precisions
from helios_operator.decide.facts.candidates import Contender, Key, backbones, legal_depths
from helios_operator.decide.facts.evidence import Evidence
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.facts.task_passes import TaskEvidence, TaskShare
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh.pace import pace_of
from helios_operator.decide.weigh.predicting import joules, scaled, slow_step

_UNKNOWN_TO_PODS = Verdict(
    False,
    Reason.PRECISION_UNSUPPORTED,
    "the release of the pods supports only auto: other precisions are considered once the pods are new",
)


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
    timed_rows: int = 0
    """The most that were timed, where more are foretold; 0: no more are."""


@dataclass(frozen=True)
class Option:
    """A candidate at a depth in layers, its weights, keys and values held in some precision."""

    contender: Contender
    layer_budget: int
    max_batch_size: int
    """The most rows that serve it well."""
    performance: Performance | None
    """None: no memory for one row, or not timed."""
    quality: Estimate | None = None
    """None: not known on this evidence."""
    agreement: Estimate | None = None
    tasks: TaskShare | None = None
    """None: the SLO asks for none."""
    verdict: Verdict = field(default=Verdict(True, "", ""))
    """Why it is out before any SLO is asked: no memory, not timed."""
    precision: Precision = REFERENCE

    @property
    def key(self) -> tuple[Key, int, int]:
        return (self.contender.key, self.layer_budget, precisions.place(self.precision))

    @property
    def timing(self) -> TimingRow | None:
        """Of its precision."""
        return self.contender.timing_at(self.precision)

    @property
    def is_full_depth(self) -> bool:
        return bool(self.contender.resolved and self.contender.resolved.num_layers == self.layer_budget)

    @property
    def service(self) -> tuple[str, str, int, Precision]:
        """What a caller gets: at full depth heads do not matter."""
        resolved = self.contender.resolved
        if resolved is None:
            return ("", "", self.layer_budget, self.precision)
        heads = "" if self.is_full_depth else resolved.exits_digest
        return (resolved.backbone, heads, self.layer_budget, self.precision)

    def __str__(self) -> str:
        return f"{self.contender.name} at {self.layer_budget}{precisions.suffix(self.precision)}"


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
    tasks: TaskEvidence | None = None
    """None: the SLO asks for none."""
    contract_version: int = VERSION
    """That every pod which serves understands."""
    _known: dict[tuple[str, Key, int, Precision], Option] = field(
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
        precision: Precision = REFERENCE,
    ) -> Bench:
        """`pods`: of those that serve; `serving`: what they serve, if it is a candidate, in `precision`."""
        return cls(
            spec=snapshot.deployment.spec,
            memory_mib=memory_mib(snapshot),
            contenders=contenders,
            pace=pace_of(serving, precision, pods, policy),
            process_start_bytes=max((pod.capacity.process_start_bytes for pod in pods), default=0),
            policy=policy,
            contract_version=min((pod.contract_version for pod in pods), default=VERSION),
        )

    def options(self, evidence: Evidence | None) -> tuple[Option, ...]:
        return tuple(
            self.option(contender, layer, precision, evidence)
            for contender in self.contenders
            if contender.measurable
            for layer in legal_depths(contender, self.spec.limits.layer_budget)
            for precision in contender.precisions
        )

    def option(
        self, contender: Contender, layer: int, precision: Precision, evidence: Evidence | None
    ) -> Option:
        place = (contender.name, contender.key, layer, precision)
        if place not in self._known:
            self._known[place] = self._without_evidence(contender, layer, precision)
        known = self._known[place]
        if evidence is None:
            return known
        return replace(
            known,
            quality=evidence.quality(contender, layer, precision),
            agreement=evidence.agreement(contender, layer, precision),
            tasks=self.tasks.share(contender, layer, precision) if self.tasks else None,
        )

    def _without_evidence(self, contender: Contender, layer: int, precision: Precision) -> Option:
        option, timing = (
            Option(contender, layer, 0, None, precision=precision),
            contender.timing_at(precision),
        )
        if not precisions.is_known_to(self.contract_version, precision):
            return replace(option, verdict=_UNKNOWN_TO_PODS)
        if timing is None or timing.fit is None or timing.memory is None:
            return replace(option, verdict=self._untimed(contender, precision))
        rows = self.rows(contender, layer, precision)
        if rows == 0:
            return replace(option, verdict=self._no_memory(contender, layer, precision))
        batch, performance = self._best_batch(contender, timing, layer, rows)
        return replace(option, max_batch_size=batch, performance=performance)

    def rows(self, contender: Contender, layer: int, precision: Precision) -> int:
        """Rows of the workload that fit at this depth, at most the spec's and those that a step takes; 0 when
        unknown or none does."""
        fits = self._capacity(contender, layer, precision, self.spec.limits.max_batch_size or 0)
        return fits.rows if fits else 0

    def largest_request(
        self, contender: Contender, layer: int, precision: Precision, max_rows: int
    ) -> int | None:
        """Tokens of prompt and output that one request may have with so many rows; None when unknown."""
        fits, resolved = self._capacity(contender, layer, precision, max_rows), contender.resolved
        if fits is None or resolved is None or not fits.rows:
            return None
        return largest_request(resolved.max_context_tokens, fits.tokens)

    def _capacity(
        self, contender: Contender, layer: int, precision: Precision, max_rows: int
    ) -> Capacity | None:
        timing = contender.timing_at(precision)
        if timing is None or timing.memory is None or not self.memory_mib:
            return None
        workload, steps = self.spec.workload, timing.memory.step_tokens
        return capacity(
            self._facts(timing.memory),
            limit_bytes=self.memory_mib * MIB,
            layers=layer,
            tokens_per_request=workload.isl + workload.osl,
            exit_bytes=self._exit_bytes(contender, timing),
            audit_bytes=self._audit_bytes(timing),
            max_rows=min(max_rows or steps, steps),
        )

    def needed_mib(self, contender: Contender, layer: int, precision: Precision) -> int:
        """For one row."""
        timing, workload = contender.timing_at(precision), self.spec.workload
        if timing is None or timing.memory is None:
            return 0
        needed = limit_for_rows(
            self._facts(timing.memory),
            layers=layer,
            rows=1,
            tokens_per_request=workload.isl + workload.osl,
            exit_bytes=self._exit_bytes(contender, timing),
            audit_bytes=self._audit_bytes(timing),
        )
        return ceil(needed / MIB)

    def _facts(self, profiled: MemoryFacts) -> MemoryFacts:
        return replace(profiled, process_start_bytes=self.process_start_bytes or profiled.process_start_bytes)

    def least_mib(self, contender: Contender, layer: int) -> int:
        """The same in the precision that needs least of those that are known."""
        needed = (self.needed_mib(contender, layer, precision) for precision in contender.precisions)
        return min(filter(None, needed), default=0)

    def overfull(self, contender: Contender, precision: Precision) -> str:
        """Why the memory cannot hold these weights at the shallowest allowed depth, which is known before
        they are timed from others that are held alike, or from what their author says; "" where it may."""
        depths = legal_depths(contender, self.spec.limits.layer_budget)
        published, weights = contender.published, precision.weight_dtype
        alike = (row for row in contender.timings if row.identity.weight_dtype == weights)
        timing = next(alike, None)
        if not self.memory_mib or not depths or contender.resolved is None:
            return ""
        if timing and timing.memory:
            facts = self._facts(timing.memory)
            held = facts.process_start_bytes + facts.fixed_bytes + depths[0] * facts.layer_bytes
            needed = ceil(held / MIB)
        else:
            share = precisions.share_of_weights(precision) * depths[0] / contender.resolved.num_layers
            needed = round((published.memory_mib or 0) * share)
        if needed <= self.memory_mib:
            return ""
        return f"its weights need {needed} MiB at {depths[0]} layers, {self.memory_mib} MiB given"

    def _untimed(self, contender: Contender, precision: Precision) -> Verdict:
        if failed := contender.failed_at(precision):
            return Verdict(False, Reason.PROFILE_FAILED, f"timing failed: {failed.message}")
        if len(contender.precisions) > 1 and (overfull := self.overfull(contender, precision)):
            return Verdict(False, Reason.NOT_ENOUGH_MEMORY, overfull)
        return Verdict(False, Reason.NOT_PROFILED, "not timed yet")

    def _no_memory(self, contender: Contender, layer: int, precision: Precision) -> Verdict:
        needed = self.needed_mib(contender, layer, precision)
        if not self.memory_mib:
            message = (
                "how much memory a pod has is not known, neither from its node's labels nor from a timing; "
                "set limits.memoryMiB"
            )
            return Verdict(False, Reason.NOT_PROFILED, message, {"neededMiB": needed})
        message = f"needs {needed} MiB at {layer} layers, {self.memory_mib} MiB given"
        return Verdict(
            False, Reason.NOT_ENOUGH_MEMORY, message, {"neededMiB": needed, "givenMiB": self.memory_mib}
        )

    def _exit_bytes(self, contender: Contender, timing: TimingRow) -> int:
        """Every bundle of the backbone is held: the audit scores them side by side."""
        resolved = contender.resolved
        if resolved is None:
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

        def predicted(load: Workload, most: int = batch) -> Prediction:
            mean = predict(fit, layers=layer, head_kind=kind, batch=most, workload=load, step_tokens=steps)
            return scaled(mean, pace)

        mean = predicted(workload)
        beyond = 0 < fit.timed_rows < batch
        sure = predicted(workload, fit.timed_rows) if beyond else mean
        names_load = workload.concurrency or workload.request_rate
        compared = mean if names_load else predicted(replace(workload, concurrency=1))
        error = 1 + fit.error_percent / 100
        slow = slow_step(fit, layer, kind, mean.rows, workload, steps, self.spec.slo.percentile) * pace / 1e6
        rate = min(mean.tokens_per_second, sure.tokens_per_second) / error
        return Performance(
            expected=mean,
            tokens_per_second=rate,
            ttft_ms=mean.ttft_ms * error,
            itl_ms=max(mean.itl_ms, slow) * error,
            e2e_ms=mean.e2e_ms * error,
            latency_ms=compared.e2e_ms * error,
            joules_per_megatoken=joules(timing.energy, fit, mean.rows, rate),
            timed_rows=fit.timed_rows if beyond else 0,
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


def _halvings(rows: int) -> Iterator[int]:
    while rows >= 1:
        yield rows
        rows //= 2
