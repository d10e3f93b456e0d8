"""What is known of the user's tasks: which the reference passes, and which share of those an option does.

Built once per pass, asked by `options` for each option. Bounds are Clopper-Pearson's (`binomial`). The
reference is the best candidate at full depth, held as published: what it fails itself counts against nobody.
It must not decide what is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from helios_contract.serves import REFERENCE, Precision
from helios_contract.tasks import passes
from helios_contract.telemetry import Telemetry

from helios_operator.api.identity import tasks_name
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import RowPhase, TasksIdentity, TasksRow
from helios_operator.decide.facts import binomial, quality, tally
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import newest_common
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Snapshot, TaskSet


@dataclass(frozen=True)
class TaskShare:
    """Of the tasks that the reference passes. `why`: what keeps it from being known; None when it is."""

    estimate: Estimate | None = None
    why: Verdict | None = None


@dataclass(frozen=True)
class TaskEvidence:
    """`rows` by name; `reference`: None while quality does not tell which it is."""

    asked: TaskSet
    rows: Mapping[str, TasksRow]
    reference: Contender | None
    policy: Policy

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        contenders: Iterable[Contender],
        fleet: Fleet,
        now: datetime,
        policy: Policy,
    ) -> TaskEvidence | None:
        """None where the SLO does not ask for tasks."""
        if snapshot.deployment.spec.slo.min_task_percent is None:
            return None
        common = newest_common([c for c in contenders if c.competes], now, policy)
        best = common.reference if common else None
        out = doubted(snapshot, fleet, now)
        rows = {row.name: row for row in snapshot.task_rows if row.name not in out}
        return cls(snapshot.tasks or TaskSet(), rows, best[0] if best else None, policy)

    def share(self, contender: Contender, layer: int, precision: Precision) -> TaskShare:
        problem = self._reference_problem()
        if problem is not None:
            return TaskShare(why=problem)
        reference = self._passes(self.reference_identity)
        trials = sum(reference)
        mine = self.identity(contender, layer, precision)
        if mine == self.reference_identity:
            return TaskShare(quality.exactly(100.0, trials))
        if self.complete(mine) is None:
            return TaskShare(why=self._not_measured(mine))
        both = sum(a and b for a, b in zip(reference, self._passes(mine), strict=True))
        sure = self.policy.task_confidence
        low, high = (bound(both, trials, sure) for bound in (binomial.lower, binomial.upper))
        return TaskShare(Estimate(100 * both / trials, 100 * low, 100 * high, trials))

    # -- rows ------------------------------------------------------------------------------------------------

    @property
    def reference_identity(self) -> TasksIdentity | None:
        reference = self.reference
        if reference is None or reference.resolved is None:
            return None
        return self.identity(reference, reference.resolved.num_layers, REFERENCE)

    def identity(self, contender: Contender, layer: int, precision: Precision) -> TasksIdentity:
        return tasks_identity(contender, layer, precision, self.asked.digest)

    def complete(self, identity: TasksIdentity | None) -> TasksRow | None:
        row = self.rows.get(tasks_name(identity)) if identity else None
        return row if row and row.phase is RowPhase.COMPLETE and row.tasks == self.asked.tasks else None

    def failed(self, identity: TasksIdentity) -> TasksRow | None:
        row = self.rows.get(tasks_name(identity))
        return row if row and row.phase is RowPhase.FAILED else None

    def _passes(self, identity: TasksIdentity | None) -> tuple[bool, ...]:
        row = self.complete(identity)
        return passes(row.passes, row.tasks) if row else ()

    # -- what is not known -----------------------------------------------------------------------------------

    def _reference_problem(self) -> Verdict | None:
        if not self.asked.digest:
            return Verdict(False, Reason.NO_TASKS, self.asked.problem or "profiling.tasks gives none")
        identity = self.reference_identity
        if identity is None:
            return Verdict(False, Reason.TASKS_NOT_MEASURED, "its tasks run once its quality is known")
        row = self.complete(identity)
        if row is None:
            return self._not_measured(identity, "of the reference ")
        passed, least = sum(passes(row.passes, row.tasks)), self.policy.min_tasks
        if passed < least:
            said = f"the reference passes {passed} of {row.tasks} tasks, at least {least} are needed to judge"
            return Verdict(False, Reason.TOO_FEW_TASKS, said)
        return None

    def _not_measured(self, identity: TasksIdentity, whose: str = "") -> Verdict:
        failed = self.failed(identity)
        words = f"could not be run: {failed.message}" if failed else "have not run yet"
        return Verdict(False, Reason.TASKS_NOT_MEASURED, f"tasks {whose}{words}")


def tasks_identity(contender: Contender, layer: int, precision: Precision, digest: str) -> TasksIdentity:
    """At full depth heads do not matter."""
    resolved = contender.resolved
    is_full = resolved is not None and layer == resolved.num_layers
    return TasksIdentity(
        model_uri=contender.candidate.uri,
        revision=resolved.revision if resolved else "",
        exits_digest="" if resolved is None or is_full else resolved.exits_digest,
        layer_budget=layer,
        tasks_digest=digest,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


def doubted(snapshot: Snapshot, fleet: Fleet, now: datetime) -> frozenset[str]:
    """Names of rows that say what a pod's alarm contradicts: the files, or the machine, may be others by now.
    All that was asked of its model before; but for what that does in full, against which others are held, and
    back to which there must be a way."""
    known = {pod.name: pod.alarms for pod in snapshot.deployment.status.reassessment.pods}
    found = set[str]()
    for pod in fleet.ready_pods:
        told = pod.telemetry
        labels = [tally.label(alarm) for alarm in told.alarms if alarm.kind == tally.TASKS] if told else []
        if told and labels:
            heard = max(known.get(pod.name, {}).get(each, now) for each in labels)
            found |= {row.name for row in snapshot.task_rows if _is_doubted(row, told, heard)}
    return frozenset(found)


def _is_doubted(row: TasksRow, told: Telemetry, heard: datetime) -> bool:
    mine, limits = row.identity, told.limits
    is_whole = mine.layer_budget == told.capacity.total_layers and mine.precision == REFERENCE
    same_model = (mine.model_uri, mine.revision) == (limits.model_uri, limits.model_revision)
    return same_model and not is_whole and row.completed is not None and row.completed < heard
