"""Profiling Jobs as decisions see them: the Job object's phase, and the result in its pod's termination
message.

Called by `observe` with the mirror. The Job controller retries and keeps the deadline; what a failed Job
leaves is final. It starts and deletes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from helios_operator.api.timestamps import parse_time
from helios_operator.api.types import Candidate, Deployment
from helios_operator.cluster import pods
from helios_operator.cluster.kinds import JOB, POD, Object, key_of
from helios_operator.cluster.mirror import Mirror, owner_of, source
from helios_operator.decide.snapshot import Hardware, Job, JobPhase, JobSpec
from helios_operator.passes import jobs as passes
from helios_operator.passes.unread import Reader, Unread
from helios_operator.render import containers, labels
from helios_operator.render.job import job_spec

_PATIENCE = timedelta(seconds=30)
"""For the news of a pod whose Job has ended already."""


def see(
    hd: Deployment,
    candidates: Iterable[Candidate],
    mirror: Mirror,
    reader: Reader,
    hardware: Hardware,
    now: datetime,
) -> tuple[tuple[Job, ...], tuple[Unread, ...]]:
    """Its own Jobs, and those of other deployments that measure for it too: rows are shared. And its own of
    which nobody knows any more what they were asked."""
    uris = {candidate.uri for candidate in candidates}
    jobs: list[Job] = []
    unread: list[Unread] = []
    for obj in _known(mirror, hd.namespace):
        asked = reader.read(source(JOB, obj), job_spec)
        if isinstance(asked, Unread):
            unread += [asked] if is_own(hd, obj) else []
        elif is_own(hd, obj) or {candidate.uri for candidate in asked.candidates} <= uris:
            jobs.append(_see(obj, asked, mirror, hardware, hd, now))
    return tuple(jobs), tuple(unread)


def is_own(hd: Deployment, job: Object) -> bool:
    return owner_of(job) == (hd.namespace, hd.name)


def _known(mirror: Mirror, namespace: str) -> Iterator[Object]:
    for obj in mirror.all(JOB, namespace):
        is_ours = labels.JOB_SPEC in (obj["metadata"].get("annotations") or {})
        if is_ours and not obj["metadata"].get("deletionTimestamp"):
            yield obj


def _see(
    obj: Object, spec: JobSpec, mirror: Mirror, hardware: Hardware, hd: Deployment, now: datetime
) -> Job:
    status = obj.get("status", {})
    started = parse_time(status.get("startTime") or obj["metadata"]["creationTimestamp"])
    job = Job(spec, JobPhase.RUNNING, started)
    ended = _condition(obj, "Complete") or _condition(obj, "Failed")
    its_pods = _pods(obj, mirror)
    if ended is None:
        waiting = (text for pod in its_pods if (text := pods.trouble(pod)))
        return Job(spec, JobPhase.RUNNING, started, message=next(waiting, ""))
    when = parse_time(status.get("completionTime") or ended["lastTransitionTime"])
    if ended["type"] == "Failed":
        attempts = hd.spec.profiling.backoff_limit + 1
        failed = passes.failed(job, _why(ended, its_pods), when)
        return Job(spec, failed.phase, started, when, attempts, failed.message)
    result = _result(its_pods)
    if result is not None:
        return passes.succeeded(job, spec, result, hardware, when)
    if now < when + _PATIENCE:
        return job
    return passes.failed(job, "result: its pod is gone before it was read; it runs again", when)


def _result(its_pods: list[Object]) -> str | None:
    for pod in its_pods:
        ended = pods.termination(pod, containers.PROFILE)
        if ended and ended.get("exitCode") == 0:
            return str(ended.get("message", ""))
    return None


def _why(condition: Object, its_pods: list[Object]) -> str:
    """In the words of the newest pod; a Job past its deadline has lost its pods."""
    if condition.get("reason") == "DeadlineExceeded":
        return "deadline: not done in time; raise profiling.activeDeadlineSeconds"
    for pod in reversed(its_pods):
        if ended := pods.termination(pod, containers.PROFILE):
            return passes.said(str(ended.get("message", ""))) or pods.ending(ended)
    return f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"


def _pods(job: Object, mirror: Mirror) -> list[Object]:
    """Oldest first."""
    owner = owner_of(job)
    found = [pod for pod in mirror.of(POD, owner) if _is_of(pod, job)] if owner else []
    return sorted(found, key=lambda pod: (pods.started(pod), key_of(pod)))


def _is_of(pod: Object, job: Object) -> bool:
    references = pod["metadata"].get("ownerReferences") or ()
    return any(reference.get("uid") == job["metadata"]["uid"] for reference in references)


def _condition(job: Object, kind: str) -> Object | None:
    conditions = job.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)
