"""Which options are still to be asked the user's tasks, by which Job.

Called by `profiling` once timing and quality stand: asking is dear, so only what may be chosen is asked, the
best first, and no more once one that passes is better than all that were not. What serves is asked too. It
must not choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from helios_contract.serves import REFERENCE, Precision

from helios_operator.api.annotations import newest_request
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.identity import tasks_name
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import TasksIdentity, TasksRow
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import Evidence, LiveEvidence
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.facts.precisions import WITH_FP8
from helios_operator.decide.facts.task_passes import TaskEvidence, doubted, tasks_identity
from helios_operator.decide.measure import jobs
from helios_operator.decide.plan import Action, DeleteJob, DeleteProfile, Verdict
from helios_operator.decide.snapshot import AskedOption, JobKind, JobSpec, Snapshot
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Bench, Option
from helios_operator.decide.weigh.scene import Scene


@dataclass(frozen=True)
class _Asked:
    """An option that is to be asked, by what it is."""

    contender: Contender
    layer_budget: int
    precision: Precision

    def identity(self, digest: str) -> TasksIdentity:
        return tasks_identity(self.contender, self.layer_budget, self.precision, digest)


def wanted(snapshot: Snapshot, bench: Bench, fleet: Fleet, now: datetime) -> Iterator[JobSpec]:
    """None where the SLO asks for no tasks."""
    if bench.tasks is not None and bench.tasks.asked.digest and bench.tasks.reference is not None:
        yield from _Wishes(snapshot, bench, fleet, now, bench.tasks).jobs()


@dataclass(frozen=True)
class _Wishes:
    snapshot: Snapshot
    bench: Bench
    fleet: Fleet
    now: datetime
    evidence: TaskEvidence

    def jobs(self) -> Iterator[JobSpec]:
        """One for all, unless one of several failed: then nobody knows which of them it was."""
        digest = self.evidence.asked.digest
        asked = {tasks_name(each.identity(digest)): each for each in self._to_ask()}
        missing = {name: each for name, each in asked.items() if self._lacks(each.identity(digest))}
        together = [each for name, each in missing.items() if not self._spoilt(name)]
        for beside in self._by_device(together):
            yield _job(beside, digest)
        yield from (_job((each,), digest) for name, each in missing.items() if self._spoilt(name))

    def _to_ask(self) -> Iterator[_Asked]:
        """The reference first: without it nothing else tells. Then what serves, then what may be chosen."""
        reference = self.evidence.reference
        if reference is not None and reference.resolved is not None:
            yield _Asked(reference, reference.resolved.num_layers, REFERENCE)
        options = [*self._serving(), *self._best_unasked()]
        wishes = (_Asked(each.contender, each.layer_budget, each.precision) for each in options)
        for beside in self._by_device(wishes):
            yield from beside[: self.bench.policy.tasks_at_once]

    def _by_device(self, asked: Iterable[_Asked]) -> Iterator[tuple[_Asked, ...]]:
        """What no CPU has is not asked with others, which need no accelerator."""
        everywhere, elsewhere = list[_Asked](), list[_Asked]()
        for each in asked:
            is_bound = self.snapshot.accelerators_free is not None and each.precision in WITH_FP8
            (elsewhere if is_bound else everywhere).append(each)
        yield from (tuple(beside) for beside in (everywhere, elsewhere) if beside)

    @cached_property
    def _scene(self) -> Scene:
        return Scene(self.snapshot, self.bench, self.fleet, self.now, measuring_done=True)

    def _serving(self) -> Iterator[Option]:
        current = self._scene.current_on(self._scene.profiles)
        if current is not None and current.verdict.reason == Reason.TASKS_NOT_MEASURED:
            yield current

    def _best_unasked(self) -> Iterator[Option]:
        """Before the best that passes, on the profiles and on what is audited."""
        for evidence in filter(None, (self._scene.profiles, self._live())):
            for option in sorted(
                self._scene.allowed_on(evidence), key=lambda option: select.merit(option, self.bench.spec)
            ):
                if option.verdict.ok:
                    break
                if option.verdict.reason == Reason.TASKS_NOT_MEASURED:
                    yield option

    def _live(self) -> Evidence | None:
        scene, audits = self._scene, self.fleet.audits_since_change()
        serving = self.fleet.serving
        if scene.contender is None or serving is None or len(audits) < self.bench.policy.min_audits:
            return None
        return LiveEvidence(audits, scene.contender, scene.profiles, self.bench.policy, serving.precision)

    def _lacks(self, identity: TasksIdentity) -> bool:
        """What failed lately is tried again with patience, or when a person asks."""
        if self.evidence.complete(identity):
            return False
        failed = self.evidence.failed(identity)
        if failed is None or failed.completed is None:
            return True
        request = newest_request(self.snapshot.deployment.annotations)
        is_asked = request is not None and request.asked > failed.completed
        return is_asked or self.now >= failed.completed + self.bench.policy.failed_row_retry

    def _spoilt(self, row: str) -> bool:
        return any(
            job.spec.kind is JobKind.TASKS
            and jobs.is_of_several(job.spec)
            and row in job.spec.rows
            and jobs.exhausted(job, self.snapshot)
            for job in self.snapshot.jobs
        )


def _job(asked: tuple[_Asked, ...], digest: str) -> JobSpec:
    rows = tuple(tasks_name(each.identity(digest)) for each in asked)
    candidates = {each.contender.name: each.contender.candidate for each in asked}
    return JobSpec(
        name=jobs.named("k", rows),
        kind=JobKind.TASKS,
        candidates=tuple(candidates.values()),
        rows=rows,
        tasks_digest=digest,
        options=tuple(AskedOption(each.contender.name, each.layer_budget, each.precision) for each in asked),
    )


def expired(snapshot: Snapshot, bench: Bench, fleet: Fleet, now: datetime) -> Iterator[Action]:
    """What is doubted goes, to be asked anew, and the Jobs that found it: they would say it again."""
    why = Verdict(True, EventReason.TASK_ALARM, "a pod fails tasks that it passed when it was profiled")
    names = doubted(snapshot, fleet, now)
    for job in snapshot.jobs:
        if any(row.name in names for row in job.tasks):
            yield DeleteJob(name=job.spec.name, why=why)
    for name in sorted(names):
        yield DeleteProfile(name=name, for_all=True, why=why)
    yield from _beyond_the_limit(snapshot, bench)


def _beyond_the_limit(snapshot: Snapshot, bench: Bench) -> Iterator[Action]:
    """Tasks rows of candidates beyond the history limit of each option, oldest first, none of today's
    tasks."""
    limit = snapshot.deployment.spec.profiling.history_limit
    today = snapshot.tasks.digest if snapshot.tasks else ""
    models = {(c.candidate.uri, c.resolved.revision) for c in bench.contenders if c.resolved}
    options: dict[object, list[TasksRow]] = {}
    for row in snapshot.task_rows:
        if (row.identity.model_uri, row.identity.revision) in models and row.completed:
            options.setdefault(replace(row.identity, tasks_digest=""), []).append(row)
    for rows in options.values():
        newest = sorted(rows, key=lambda row: (row.completed, row.name), reverse=True)
        for row in newest[limit:]:
            if row.identity.tasks_digest != today:
                message = f"older than the {limit} newest of what it passes"
                yield DeleteProfile(name=row.name, why=Verdict(True, EventReason.ROW_EXPIRED, message))
