"""The candidates of a HeliosDeployment, and those that no pod can reach for want of a volume claim.

Called by `observe` and `apply`. A Job that mounts a missing claim would wait for it until its deadline, and
the first pod with it; so the answer is given without one. It decides nothing about what can be reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from helios_operator.api.models import Model
from helios_operator.api.types import Candidate, Deployment
from helios_operator.cluster.kinds import CLAIM
from helios_operator.cluster.reads import Reads
from helios_operator.decide.facts.candidates import identity
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec
from helios_operator.render import volumes


def candidates_of(hd: Deployment, models: Iterable[Model]) -> tuple[Candidate, ...]:
    """Of the spec, or of the catalogue."""
    selector = hd.spec.candidate_selector
    if selector is None:
        return hd.spec.candidates
    wanted = selector.match_labels.items()
    return tuple(model.candidate for model in models if wanted <= model.labels.items())


async def missing_claims(candidate: Candidate, namespace: str, reads: Reads) -> list[str]:
    claims = volumes.claims(volumes.candidate_uris([candidate]))
    return [claim for claim in claims if await reads.get(CLAIM, namespace, claim) is None]


async def unreachable(
    hd: Deployment, models: Iterable[Model], reads: Reads, now: datetime
) -> tuple[Job, ...]:
    """What an Inspect Job would have found of each, as long as it is so. What was resolved once is left
    alone: a claim that goes takes nothing from pods that mount it."""
    resolved = {found.identity for found in hd.status.candidates if found.resolved}
    jobs = []
    for candidate in candidates_of(hd, models):
        if identity(candidate) in resolved:
            continue
        if missing := await missing_claims(candidate, hd.namespace, reads):
            problem = f"PersistentVolumeClaim {missing[0]}: does not exist; create it in {hd.namespace}"
            jobs.append(_inspected(candidate, problem, now))
    return tuple(jobs)


def _inspected(candidate: Candidate, problem: str, now: datetime) -> Job:
    spec = JobSpec(f"i-{identity(candidate)}", JobKind.INSPECT, (candidate,))
    return Job(spec, JobPhase.SUCCEEDED, now, now, problems={candidate.name: problem})
