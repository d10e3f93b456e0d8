"""What candidates turn out to be, looked at in this process as an Inspect Job would: headers only.

Called by `helios plan` and `helios simulate`, for what is not known from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from helios_contract.results import Inspection
from helios_operator.api.types import Candidate
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec, Snapshot


def look_at(candidates: Sequence[Candidate], volumes: Path) -> Inspection:
    """Not before it is needed: it brings torch."""
    from helios_server.profile import candidates as told
    from helios_server.profile.inspect import inspect

    asked = [told.Candidate(c.name, c.uri, c.revision, c.exits, c.exit_layers) for c in candidates]
    return inspect(asked, volumes)


def looked_at(snapshot: Snapshot, candidates: Sequence[Candidate], found: Inspection) -> Snapshot:
    """With what was found of these candidates, as a Job that ended."""
    now = datetime.now(UTC)
    spec = JobSpec("inspect", JobKind.INSPECT, tuple(candidates))
    job = Job(spec, JobPhase.SUCCEEDED, now, now, resolved=found.resolved, problems=found.problems)
    return replace(snapshot, jobs=(job,))
