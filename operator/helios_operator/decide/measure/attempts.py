"""Jobs that were started and left no result yet: remembered in the status, since a Job may vanish unread.

Called by `profiling`. The Job itself is what holds its next attempt back, as long as it is there; once it is
gone this memory is. It must not decide what is measured.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from helios_operator.api.annotations import newest_request
from helios_operator.api.types import JobStatus
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Job, JobPhase, JobSpec, Snapshot


def held_until(spec: JobSpec, snapshot: Snapshot, policy: Policy) -> datetime | None:
    """When a Job that vanished may be started again, as patient as with one that failed; None: now, as far as
    this is concerned."""
    known = _known(snapshot).get(spec.name)
    if known is None or _seen(spec.name, snapshot):
        return None
    request = newest_request(snapshot.deployment.annotations)
    if request is not None and request.asked > known.start_time:
        return None
    times = policy.retry_factor ** min(known.attempts - 1, 64)  # any more would be no number
    seconds = min(policy.retry.total_seconds() * times, policy.last_look.total_seconds())
    return known.start_time + timedelta(seconds=seconds)


def remembered(
    snapshot: Snapshot, wished: Collection[JobSpec], started: Collection[JobSpec], now: datetime
) -> tuple[JobStatus, ...]:
    """The memory after this pass. `wished`: all that is still to be measured, or to be looked at again."""
    known, names = _known(snapshot), {spec.name for spec in wished}
    kept = {name: job for name, job in known.items() if name in names or _holds(_seen(name, snapshot))}
    for spec in started:
        before = known.get(spec.name)
        kept[spec.name] = JobStatus(spec.name, before.attempts + 1 if before else 1, now)
    return tuple(kept[name] for name in sorted(kept))


def _holds(job: Job | None) -> bool:
    """It runs, or found a fault: another look will follow."""
    return job is not None and (job.phase is not JobPhase.SUCCEEDED or bool(job.problems))


def _known(snapshot: Snapshot) -> dict[str, JobStatus]:
    return {job.name: job for job in snapshot.deployment.status.jobs}


def _seen(name: str, snapshot: Snapshot) -> Job | None:
    return next((job for job in snapshot.jobs if job.spec.name == name), None)
