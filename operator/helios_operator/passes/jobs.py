"""A profiling Job before it starts and after it ended, whoever runs it: pinned to revisions, and read back.

Called by the runtimes with what they have of a Job: a process and its file, or a pod and its termination
message. It must not start, retry or delete anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from helios_contract.serves import Precision
from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api import results
from helios_operator.api.identity import timing_name
from helios_operator.api.rows import Hardware, TimingIdentity
from helios_operator.api.types import Deployment
from helios_operator.decide.facts.candidates import identity
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec
from helios_operator.errors import ResultError


def pinned(spec: JobSpec, deployment: Deployment, jobs: Iterable[Job]) -> JobSpec:
    """With the revisions that Inspect found, so that what is measured is what was meant."""
    if spec.kind is JobKind.INSPECT:
        return spec
    found = {c.identity: c.resolved for c in deployment.status.candidates if c.resolved}
    for job in jobs:
        found |= {identity(c): job.resolved[c.name] for c in job.spec.candidates if c.name in job.resolved}
    candidates = (
        replace(c, revision=found[identity(c)].revision) if identity(c) in found else c
        for c in spec.candidates
    )
    return replace(spec, candidates=tuple(candidates))


def succeeded(job: Job, told: JobSpec, text: str, hardware: Hardware, now: datetime) -> Job:
    """With what its result document holds. `told`: the pinned spec; `hardware`: where it ran."""
    done = replace(job, phase=JobPhase.SUCCEEDED, finished=now, message="")
    try:
        result = results.read(text)
        done = replace(done, left_out=results.left_out(result))
        match told.kind:
            case JobKind.INSPECT:
                found = results.inspection(result)
                return replace(done, resolved=found.resolved, problems=found.problems)
            case JobKind.TIMING:
                measured = {p: _timing_identity(told, hardware, p) for p in told.precisions}
                return replace(done, timings=results.timings(result, measured, now))
            case JobKind.QUALITY:
                candidates = {candidate.name: candidate for candidate in told.candidates}
                return replace(done, quality=results.quality(result, candidates, now))
            case JobKind.TASKS:
                candidates = {candidate.name: candidate for candidate in told.candidates}
                return replace(done, tasks=results.tasks(result, candidates, told.tasks_digest, now))
    except ResultError as error:
        return failed(job, str(error), now)


def failed(job: Job, message: str, now: datetime) -> Job:
    return replace(job, phase=JobPhase.FAILED, finished=now, message=message)


def said(text: str) -> str | None:
    """What a failed Job wrote about its failure; None when it wrote no document."""
    try:
        return results.failure(results.read(text))
    except ResultError:
        return None


def _timing_identity(spec: JobSpec, hardware: Hardware, precision: Precision) -> TimingIdentity:
    """ResultError when the hardware is no longer what was asked for: its figures are nobody's."""
    backbone = spec.candidates[0]
    measured = TimingIdentity(
        model_uri=backbone.uri,
        revision=backbone.revision or "",
        dtype=hardware.dtype,
        head_kinds=spec.head_kinds,
        hardware=hardware,
        performance_version=PERFORMANCE_VERSION,
        max_context_tokens=spec.max_context_tokens,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )
    if spec.rows and timing_name(measured) not in spec.rows:
        raise ResultError("result", "was measured on other hardware than asked for", "it is measured again")
    return measured
