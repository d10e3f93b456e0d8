"""What must be measured, by which Job and when; and what finished Jobs brought home.

Called by `decide` each pass. A measurement is found again by its identity, so nothing is measured twice, not
after a restart and not for another deployment. It must not judge candidates: it fills the history table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from helios_contract.serves import REFERENCE

from helios_operator.api.conditions import ConditionType
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import JobStatus
from helios_operator.decide.facts import accelerators, candidates, prompts
from helios_operator.decide.facts.accelerators import Accelerators
from helios_operator.decide.facts.candidates import Contender, backbones
from helios_operator.decide.facts.evidence import age
from helios_operator.decide.facts.fleet import Fleet, all_ready
from helios_operator.decide.measure import attempts, expiry, jobs, racing, task_jobs
from helios_operator.decide.measure.missing import Missing
from helios_operator.decide.measure.prompt_sets import PromptSets
from helios_operator.decide.plan import Action, StartJob, Verdict
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec, Snapshot
from helios_operator.decide.weigh.options import Bench

_FIRST = (JobKind.INSPECT, JobKind.TIMING)
"""What the first pod may wait for."""


@dataclass(frozen=True)
class Measuring:
    """`done`: nothing that a choice waits for is missing. `looked`, `timed`: no Inspect, or no timing either,
    is missing that the first pod would wait for. `progress` is the Profiled condition's reason and
    message."""

    actions: tuple[Action, ...]
    done: bool
    looked: bool
    timed: bool
    progress: Verdict
    jobs: tuple[JobStatus, ...] = ()
    """Of the status: those whose results are waited for."""
    again_at: datetime | None = None


def measure(snapshot: Snapshot, bench: Bench, fleet: Fleet, now: datetime) -> Measuring:
    table = Table(snapshot, bench, fleet, now)
    wanted = list(table.wanted())
    wished = [*wanted, *table.second_looks()]
    starts, waiting = table.start(wished)
    actions = (
        *jobs.harvest(snapshot, bench.contenders, now, bench.policy),
        *starts,
        *expiry.quality_rows(snapshot, bench, table.prompts),
        *task_jobs.expired(snapshot, bench, fleet, now),
    )
    return Measuring(
        actions=actions,
        done=not any(map(table.is_waited_for, wanted))
        and table.inspected
        and table.quality_possible is not None,
        looked=not any(table.is_awaited(spec) for spec in wanted if spec.kind is JobKind.INSPECT),
        timed=not any(table.is_awaited(spec) for spec in wanted if spec.kind in _FIRST),
        progress=table.progress(wanted, waiting),
        jobs=attempts.remembered(snapshot, wished, [action.job for action in starts], now),
        again_at=table.again_at(wished),
    )


@dataclass(frozen=True)
class Table:
    """The history table as this deployment needs it."""

    snapshot: Snapshot
    bench: Bench
    fleet: Fleet
    now: datetime

    @property
    def policy(self) -> Policy:
        return self.bench.policy

    @cached_property
    def missing(self) -> Missing:
        return Missing(self.snapshot, self.bench, self.now)

    @cached_property
    def competing(self) -> tuple[Contender, ...]:
        return tuple(c for c in self.bench.contenders if c.competes)

    @property
    def inspected(self) -> bool:
        return all(c.resolved for c in self.competing)

    @cached_property
    def sets(self) -> PromptSets:
        return PromptSets(self.snapshot, self.competing, self.missing, self.fleet, self.now)

    @property
    def quality_possible(self) -> bool | None:
        return self.sets.quality_possible

    @property
    def prompts(self) -> str:
        return self.sets.digest

    def wanted(self) -> Iterator[JobSpec]:
        """Missing measurements, the most urgent first: what is it, how fast is it, how good is it; and then,
        what does it do of the user's own."""
        before = list(self._wanted_first())
        yield from before
        if not any(map(self.is_waited_for, before)):
            yield from task_jobs.wanted(self.snapshot, self.bench, self.fleet, self.now)

    def _wanted_first(self) -> Iterator[JobSpec]:
        unknown = tuple(c for c in self.competing if c.resolved is None)
        if unknown:
            yield jobs.inspect_job(unknown)
        families = racing.cheapest_first(backbones(self.competing))
        for family in families:
            yield from self.missing.timings(family)
        if self.prompts:
            yield from self._wanted_qualities(families)

    def second_looks(self) -> Iterator[JobSpec]:
        """At candidates that could not be resolved, once the Job that said so is gone: the user may have put
        it right."""
        looked_at = {
            candidates.identity(c)
            for j in self.snapshot.jobs
            if j.spec.kind is JobKind.INSPECT
            for c in j.spec.candidates
        }
        forgotten = tuple(
            c
            for c in self.bench.contenders
            if _unresolved(c) and candidates.identity(c.candidate) not in looked_at
        )
        if forgotten:
            yield jobs.inspect_job(forgotten)

    def start(self, wanted: list[JobSpec]) -> tuple[list[StartJob], str]:
        """Jobs to start now, and what the first one that must wait is waiting for."""
        running = sum(job.phase is JobPhase.RUNNING for job in self.snapshot.jobs)
        free = self.snapshot.deployment.spec.profiling.max_parallelism - running
        started: list[JobSpec] = []
        actions: list[StartJob] = []
        waiting = ""
        devices = Accelerators.of(self.snapshot, self.fleet)
        for wish in wanted:
            seen = self._job(wish.name)
            if seen and (seen.phase is not JobPhase.FAILED or jobs.exhausted(seen, self.snapshot)):
                continue
            left = devices.beside(started)
            spec = left.place(wish)
            hold = self._hold(spec, seen) or left.hold(spec)
            if not hold and free <= len(actions):
                hold = "maxParallelism Jobs are running"
            if hold:
                waiting = waiting or f"{spec.name} waits: {hold}"
                continue
            started.append(spec)
            actions.append(StartJob(job=spec, why=self._why(spec, seen)))
        return actions, waiting

    def progress(self, wanted: list[JobSpec], waiting: str) -> Verdict:
        """Why the table is, or is not, complete."""
        failed = "; ".join(self._failures())
        total = len(self.competing)
        missing = len({c.key for c in self.competing if not self.missing.is_current(c, self.prompts)})
        current = "timed" if self.quality_possible is False else "profiles current"
        text = f"{total - missing} of {total} {current}"
        if failed:
            text += f"; {failed}"
        if left_out := "; ".join(self._left_out()):
            text += f"; left out: {left_out}"
        if problem := self._wrong_with_tasks():
            text += f"; {problem}"
        stuck = [self._named(spec) for spec in wanted if self._is_stuck(spec)]
        heard = [self._named(spec) for spec in wanted if self._progress(spec)]
        under_way = "; ".join(filter(None, (*stuck, *heard, waiting)))
        under_way = under_way or ", ".join(map(self._named, wanted[:3]))
        if self.quality_possible is False:
            said = "; ".join(filter(None, (text, prompts.missing(self.snapshot), under_way)))
            return Verdict(False, Reason.NO_PROMPTS, said)
        if problem:
            return Verdict(False, Reason.NO_TASKS, "; ".join(filter(None, (text, under_way))))
        if accelerators.TAKEN in waiting:
            return Verdict(False, Reason.NO_CAPACITY_FOR_PROFILING, f"{text}; {waiting}")
        if waiting and "quiet" in waiting:
            return Verdict(False, Reason.WAITING_FOR_IDLE, f"{text}; {waiting}")
        if wanted:
            return Verdict(False, Reason.PROFILING_RUNNING, f"{text}; {under_way}")
        if self.quality_possible is None:
            return Verdict(False, Reason.WAITING_FOR_PROMPTS, f"{text}; {self.sets.what_is_awaited()}")
        if failed:
            return Verdict(False, Reason.PROFILE_FAILED, text)
        if foreign := self.sets.what_may_follow():
            text += f"; {foreign}"
        return Verdict(True, Reason.ALL_CANDIDATES_CURRENT, text)

    def _wrong_with_tasks(self) -> str:
        """ "" where the SLO asks for none, or they could be read."""
        evidence = self.bench.tasks
        if evidence is None or evidence.asked.digest:
            return ""
        source = self.snapshot.deployment.spec.profiling.tasks
        field = "spec.profiling.tasks.configMapRef: " if source and source.config_map_ref else ""
        return f"{field}{evidence.asked.problem}"

    def _named(self, spec: JobSpec) -> str:
        """With what holds it up, in the words of whoever runs it."""
        job = self._job(spec.name)
        said = job.message if job and self._is_stuck(spec) else self._progress(spec)
        return f"{spec.kind.lower()} {spec.name}{f' ({said})' if said else ''}"

    def _progress(self, spec: JobSpec) -> str:
        job = self._job(spec.name)
        return job.progress if job and job.phase is JobPhase.RUNNING and not job.message else ""

    def _is_stuck(self, spec: JobSpec) -> bool:
        job = self._job(spec.name)
        return bool(job and job.phase is JobPhase.RUNNING and job.message)

    def is_waited_for(self, spec: JobSpec) -> bool:
        """By a choice. Serving has the accelerator that this one needs: the choice is made without it."""
        job = self._job(spec.name)
        runs = job is not None and job.phase is JobPhase.RUNNING
        is_scoring = spec.kind is not JobKind.TIMING and accelerators.is_of_accelerators(spec)
        return runs or not (is_scoring and Accelerators.of(self.snapshot, self.fleet).hold(spec))

    def is_awaited(self, spec: JobSpec) -> bool:
        """It runs, or may begin soon. One that nobody starts, or that no node takes, keeps nobody from
        serving."""
        job = self._job(spec.name)
        runs = job is not None and job.phase is JobPhase.RUNNING and not job.message
        return runs or self.now < self._patient_until

    @property
    def _patient_until(self) -> datetime:
        """Some time after the last progress."""
        ends = [job.finished for job in self.snapshot.jobs if job.finished]
        return max([self._waiting_since(), *ends]) + self.policy.reference_patience

    def again_at(self, wanted: list[JobSpec]) -> datetime | None:
        times = [self._retry_time(job) for spec in wanted if (job := self._job(spec.name))]
        times += [
            until for spec in wanted if (until := attempts.held_until(spec, self.snapshot, self.policy))
        ]
        if any(spec.kind is JobKind.TIMING for spec in wanted):
            patience = (self.policy.idle_patience, self.policy.start_patience)
            times += [self._waiting_since() + each for each in patience]
        if any(spec.kind in _FIRST for spec in wanted):
            times.append(self._patient_until)
        return min((time for time in times if time > self.now), default=None)

    # -- which -----------------------------------------------------------------------------------------------

    def _wanted_qualities(self, families: list[tuple[Contender, ...]]) -> Iterator[JobSpec]:
        for family in families:
            if family[0].timing is None or racing.is_dominated(family, self.bench, self.prompts, self.now):
                continue
            yield from self.missing.qualities(family, self.prompts)

    def _failures(self) -> list[str]:
        """What stands in the way, each cause once."""
        causes = [f"{c.name}: {why}" for c in self.bench.contenders if (why := _unresolved(c))]
        causes += [
            f"{family[0].name}: {family[0].timing_failed.message}"
            for family in backbones(self.competing).values()
            if family[0].timing is None and family[0].timing_failed
        ]
        causes += [
            f"{c.name}: {c.qualities_at(REFERENCE)[0].message}"
            for c in self.competing
            if self.missing.failed_lately(c)
        ]
        return causes

    def _left_out(self) -> Iterator[str]:
        for contender in self.competing:
            if said := ", ".join(self.missing.left_out(contender)):
                yield f"{contender.name} in {said}"

    # -- when ------------------------------------------------------------------------------------------------

    def _job(self, name: str) -> Job | None:
        return next((job for job in self.snapshot.jobs if job.spec.name == name), None)

    def _hold(self, spec: JobSpec, seen: Job | None) -> str:
        if seen and self.now < self._retry_time(seen):
            return f"next attempt in {age(self.now, self._retry_time(seen))}"
        until = attempts.held_until(spec, self.snapshot, self.policy)
        if until is not None and self.now < until:
            return f"its Job vanished without a result; next attempt in {age(self.now, until)}"
        return self._disturbance() if spec.kind is JobKind.TIMING else ""

    def _disturbance(self) -> str:
        """What a timing would share the processors with, for as long as it is worth waiting for."""
        waited = self.now - self._waiting_since()
        if self._pods_start and waited < self.policy.start_patience:
            return "for a quiet moment: pods are starting"
        if not self.fleet.idle and waited < self.policy.idle_patience:
            return "for a quiet moment"
        return ""

    @cached_property
    def _pods_start(self) -> bool:
        """Or are about to. On an accelerator they would not be in the way; and those that fail to start may
        need to know what a timing tells of their memory."""
        if self.snapshot.accelerators_free is not None or not self.snapshot.deployment.spec.replicas:
            return False
        serving = [revision for revision in (self.fleet.routed, self.fleet.pending) if revision]
        if any(pod.restarts and not pod.ready for revision in serving for pod in revision.pods):
            return False
        return not serving or not all(all_ready(revision) for revision in serving)

    def _retry_time(self, job: Job) -> datetime:
        waits = self.policy.retry * self.policy.retry_factor ** (job.attempts - 1)
        return (job.finished or job.started) + waits

    def _waiting_since(self) -> datetime:
        """Since when the table is incomplete: the condition remembers."""
        for condition in self.snapshot.deployment.status.conditions:
            if condition.type == ConditionType.PROFILED and condition.status != "True":
                return condition.last_transition_time
        return self.now

    def _why(self, spec: JobSpec, seen: Job | None) -> Verdict:
        names = ", ".join(sorted({candidate.name for candidate in spec.candidates}))
        where = " on the CPU" if spec.on_cpu else ""
        again = f", attempt {seen.attempts + 1}" if seen else ""
        return Verdict(
            True, EventReason.PROFILING_STARTED, f"{spec.kind} of {names}{spec.held}{where}{again}"
        )


def _unresolved(contender: Contender) -> str:
    verdict = contender.turned_away
    return verdict.message if verdict and verdict.reason == Reason.UNRESOLVED else ""
