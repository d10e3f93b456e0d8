"""Profiling Jobs: what each kind is told, and what a finished one leaves in the history table.

Called by `profiling`. Names follow from the work, so that the same Job is never started twice. It must not
decide which are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from helios_contract.serves import REFERENCE, Precision
from helios_contract.tasks import passes

from helios_operator.api.annotations import newest_request
from helios_operator.api.conditions import ConditionType
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.identity import quality_name, tasks_name, timing_name
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import QualityRow, Row, RowPhase, TasksRow, TimingRow
from helios_operator.decide.facts.candidates import (
    Contender,
    backbones,
    identity,
    quality_identity,
    timing_identity,
)
from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.facts.task_passes import tasks_identity
from helios_operator.decide.plan import Action, DeleteJob, Verdict, WriteProfile
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec, Snapshot

LEFT_OUT = "its Job left it out: it does not fit the memory, or the device does not support it"
"""Where the Job does not say why: it is of another release."""


def inspect_job(unknown: tuple[Contender, ...]) -> JobSpec:
    identities = sorted(identity(c.candidate) for c in unknown)
    name = identities[0] if len(identities) == 1 else _hash(identities)
    return JobSpec(name=f"i-{name}", kind=JobKind.INSPECT, candidates=tuple(c.candidate for c in unknown))


def timing_job(
    family: tuple[Contender, ...], snapshot: Snapshot, precisions: tuple[Precision, ...] = (REFERENCE,)
) -> JobSpec:
    """One for all candidates on a backbone."""
    wanted = [timing_identity(family, snapshot, precision) for precision in precisions]
    rows = tuple(timing_name(identity) for identity in wanted)
    return JobSpec(
        name=named("t", rows),
        kind=JobKind.TIMING,
        candidates=tuple(c.candidate for c in family),
        head_kinds=wanted[0].head_kinds,
        rows=rows,
        max_context_tokens=wanted[0].max_context_tokens,
        precisions=precisions,
    )


def quality_job(
    family: tuple[Contender, ...], prompts_digest: str, precisions: tuple[Precision, ...] = (REFERENCE,)
) -> JobSpec:
    """One full-depth pass a precision measures every bundle of a backbone. The reference's is made again if
    need be: agreement is with it. `precisions`: whose rows it fills."""
    rows = tuple(quality_name(quality_identity(c, prompts_digest, p)) for p in precisions for c in family)
    return JobSpec(
        name=named("q", rows),
        kind=JobKind.QUALITY,
        candidates=tuple(c.candidate for c in family),
        prompts_digest=prompts_digest,
        rows=rows,
        precisions=precisions if REFERENCE in precisions else (REFERENCE, *precisions),
    )


def is_of_several(spec: JobSpec) -> bool:
    """It fills rows of more than one precision: when it fails, one of them may have spoilt the others."""
    of_one = len(spec.candidates) if spec.kind is JobKind.QUALITY else 1
    return len(spec.rows) > of_one


def exhausted(job: Job, snapshot: Snapshot) -> bool:
    """Failed as often as allowed."""
    return job.phase is JobPhase.FAILED and job.attempts > snapshot.deployment.spec.profiling.backoff_limit


def harvest(
    snapshot: Snapshot, contenders: tuple[Contender, ...], now: datetime, policy: Policy
) -> Iterator[Action]:
    """Rows of finished Jobs that the table lacks; then the Job itself goes, after its time to live."""
    table: list[Row] = [*snapshot.timings, *snapshot.qualities, *snapshot.task_rows]
    settled = {row.name: row for row in table}
    for job in sorted(snapshot.jobs, key=lambda job: job.spec.name):
        if job.phase is JobPhase.RUNNING or (job.phase is JobPhase.FAILED and not exhausted(job, snapshot)):
            continue
        found = _rows(job, contenders, snapshot, now)
        rows = [row for row in found if _is_news(row, job, settled.get(row.name))]
        for row in rows:
            yield WriteProfile(row=row, why=_news(row, job))
        if not rows and _is_over(job, snapshot, now, policy):
            yield DeleteJob(
                name=job.spec.name,
                why=Verdict(True, EventReason.JOB_EXPIRED, f"{job.spec.kind} Job is finished"),
            )


def _rows(job: Job, contenders: tuple[Contender, ...], snapshot: Snapshot, now: datetime) -> Iterator[Row]:
    if job.phase is JobPhase.FAILED:
        if not is_of_several(job.spec):
            yield from _failed_rows(job, contenders, snapshot, now)
        return
    found: tuple[Row, ...] = (*job.timings, *job.quality, *_of_today(job, snapshot))
    for row in found:
        yield _completed(row, job, now)
    if found:
        names = {row.name for row in found}
        missing = _failed_rows(replace(job, message=LEFT_OUT), contenders, snapshot, now)
        yield from (_left_out(row, job) for row in missing if row.name not in names)


def _left_out(row: Row, job: Job) -> Row:
    why = job.left_out.get(row.identity.precision)
    return replace(row, message=f"its Job left it out: {why}") if why else row


def _completed(row: Row, job: Job, now: datetime) -> Row:
    return row if row.completed else replace(row, completed=job.finished or now)


def _failed_rows(
    job: Job, contenders: tuple[Contender, ...], snapshot: Snapshot, now: datetime
) -> Iterator[Row]:
    """So that the failure is remembered when the Job is gone."""
    yield from _failed_tasks(job, contenders, now)
    when = job.finished or now
    for family in backbones(contenders).values():
        for precision in job.spec.precisions:
            timing = timing_identity(family, snapshot, precision)
            if timing_name(timing) in job.spec.rows:
                yield TimingRow(timing_name(timing), timing, RowPhase.FAILED, job.message, when)
            for contender in family:
                quality = quality_identity(contender, job.spec.prompts_digest, precision)
                if quality_name(quality) in job.spec.rows:
                    yield QualityRow(quality_name(quality), quality, RowPhase.FAILED, job.message, when)


def _of_today(job: Job, snapshot: Snapshot) -> tuple[Row, ...]:
    """What it found of other tasks than there are now, nobody asks for."""
    return job.tasks if snapshot.tasks and job.spec.tasks_digest == snapshot.tasks.digest else ()


def _failed_tasks(job: Job, contenders: tuple[Contender, ...], now: datetime) -> Iterator[Row]:
    by_name = {contender.name: contender for contender in contenders if contender.resolved}
    for option in job.spec.options:
        if contender := by_name.get(option.candidate):
            asked = tasks_identity(contender, option.layer_budget, option.precision, job.spec.tasks_digest)
            if tasks_name(asked) in job.spec.rows:
                when = job.finished or now
                yield TasksRow(tasks_name(asked), asked, RowPhase.FAILED, job.message, when)


def _is_news(row: Row, job: Job, known: Row | None) -> bool:
    """A failure of a Job that began after the one that is known is: it is what the next attempt waits for."""
    if known is None:
        return True
    is_of_before = known.completed is not None and known.completed < job.started
    return known.phase is not RowPhase.COMPLETE and (known.phase is not row.phase or is_of_before)


def _news(row: Row, job: Job) -> Verdict:
    if row.phase is RowPhase.FAILED and job.phase is JobPhase.SUCCEEDED:
        return Verdict(False, Reason.PROFILE_FAILED, f"{job.spec.kind} profile {row.name}: {row.message}")
    if row.phase is RowPhase.FAILED:
        return Verdict(
            False,
            Reason.PROFILE_FAILED,
            f"{job.spec.kind} failed after {job.attempts} attempts: {row.message}",
        )
    found = f": {_passed(row)}" if isinstance(row, TasksRow) else ""
    return Verdict(True, EventReason.PROFILING_FINISHED, f"{job.spec.kind} profile {row.name}{found}")


def _passed(row: TasksRow) -> str:
    count, of = sum(passes(row.passes, row.tasks)), row.identity
    return f"{of.layer_budget} layers{suffix(of.precision)} pass {count} of {row.tasks}"


def _is_over(job: Job, snapshot: Snapshot, now: datetime, policy: Policy) -> bool:
    """Its time to live has passed; one that only lingers goes at once. One that found a fault is kept for
    other times, since it is what holds the next look back, and goes when a person asks to look again."""
    finished = job.finished or job.started
    lived = timedelta(seconds=snapshot.deployment.spec.profiling.ttl_seconds_after_finished)
    if not _found_fault(job):
        return job.lingers or now >= finished + lived
    request = newest_request(snapshot.deployment.annotations)
    asked = request is not None and request.asked > finished
    return asked or now >= finished + _patience(job, snapshot, finished, policy)


def _patience(job: Job, snapshot: Snapshot, finished: datetime, policy: Policy) -> timedelta:
    """What may be put right by hand is looked at again when it has been wrong for twice as long."""
    if job.spec.kind is not JobKind.INSPECT:
        return policy.last_look
    conditions = snapshot.deployment.status.conditions
    profiled = next((c for c in conditions if c.type == ConditionType.PROFILED), None)
    since = profiled.last_transition_time if profiled and profiled.status != "True" else finished
    return min(max(finished - since, policy.second_look), policy.last_look)


def _found_fault(job: Job) -> bool:
    return job.phase is JobPhase.FAILED or bool(job.problems) or _left_some_out(job)


def _left_some_out(job: Job) -> bool:
    """Rows that it was to fill failed, though it did not."""
    found: tuple[Row, ...] = (*job.timings, *job.quality, *job.tasks)
    return bool(found) and not set(job.spec.rows) <= {row.name for row in found}


def named(letter: str, rows: tuple[str, ...]) -> str:
    """As the row where it is one."""
    return rows[0] if len(rows) == 1 else f"{letter}-{_hash(sorted(rows))}"


def _hash(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
