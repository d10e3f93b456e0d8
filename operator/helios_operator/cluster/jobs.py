"""Profiling Jobs as decisions see them: the Job object's phase, and the result in its pod's termination
message.

Called by `observe` with the mirror. The Job controller retries and keeps the deadline; what a failed Job
leaves is final. What counts is the container that measures: another one in its pod, that somebody injected,
neither holds a result up nor spoils it. It starts and deletes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
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
    its_pods = _pods(obj, mirror)
    over = _condition(obj, "Complete") or _condition(obj, "Failed")
    ended = parse_time(status.get("completionTime") or over["lastTransitionTime"]) if over else None
    if done := _done(its_pods):
        when = ended or _finished(done) or now
        found = passes.succeeded(job, spec, str(done.get("message", "")), hardware, when)
        keeps_on = over is None and any(map(pods.runs_on, its_pods))
        return _final(replace(found, lingers=keeps_on), hd)
    if over is None or ended is None:
        return _unfinished(job, its_pods, hd, now)
    if over["type"] == "Failed":
        return _final(passes.failed(job, _why(over, its_pods), ended), hd)
    if now < ended + _PATIENCE:
        return job
    lost = passes.failed(job, "result: its pod was deleted before the result was read; it runs again", ended)
    return replace(lost, attempts=_starts(hd, spec.name))


def _unfinished(job: Job, its_pods: list[Object], hd: Deployment, now: datetime) -> Job:
    """It runs; or it failed, and something else in its pod keeps the Job from saying so. A pod that ends by
    itself is given the time to."""
    for pod in its_pods:
        ended = pods.termination(pod, containers.PROFILE)
        when = _finished(ended) if ended else None
        if ended and when and pods.runs_on(pod) and now >= when + _PATIENCE:
            return _final(replace(passes.failed(job, _words(ended), when), lingers=True), hd)
    waiting = (text for pod in its_pods if (text := pods.trouble(pod)))
    return replace(job, message=next(waiting, ""))


def _final(job: Job, hd: Deployment) -> Job:
    """The Job controller made the attempts, or cannot make them: a failure has used them up."""
    failed = job.phase is JobPhase.FAILED
    return replace(job, attempts=hd.spec.profiling.backoff_limit + 1) if failed else job


def _starts(hd: Deployment, name: str) -> int:
    """As the status remembers: a Job that was made anew knows nothing of the one before."""
    return next((known.attempts for known in hd.status.jobs if known.name == name), 1)


def _done(its_pods: list[Object]) -> Object | None:
    """How the container that measures ended well, whatever else runs in its pod."""
    endings = (pods.termination(pod, containers.PROFILE) for pod in its_pods)
    return next((ended for ended in endings if ended and ended.get("exitCode") == 0), None)


def _finished(ended: Object) -> datetime | None:
    text = ended.get("finishedAt")
    return parse_time(text) if text else None


def _why(condition: Object, its_pods: list[Object]) -> str:
    """In the words of the newest pod; a Job past its deadline has lost its pods."""
    if condition.get("reason") == "DeadlineExceeded":
        return "deadline: not done in time; raise profiling.activeDeadlineSeconds"
    for pod in reversed(its_pods):
        if ended := pods.termination(pod, containers.PROFILE):
            return _words(ended)
    return f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"


def _words(ended: Object) -> str:
    return passes.said(str(ended.get("message", ""))) or pods.ending(ended)


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
