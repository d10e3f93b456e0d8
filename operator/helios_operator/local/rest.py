"""Whether anything of a deployment is under way. Called by `runtime` after each pass: when to look again."""

from __future__ import annotations

from helios_operator.decide.snapshot import JobPhase, Snapshot


def is_at_rest(snapshot: Snapshot) -> bool:
    """One revision serves, all of it, and nothing is measured or changed."""
    if snapshot.deployment.status.target or any(job.phase is JobPhase.RUNNING for job in snapshot.jobs):
        return False
    if len(snapshot.revisions) != 1:
        return False
    [revision] = snapshot.revisions
    return len(revision.pods) == revision.replicas and all(pod.ready for pod in revision.pods)
