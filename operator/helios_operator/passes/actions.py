"""What an action does, in a few words, for logs, events and `helios why`; and which of them may wait for
others.

Called by every runtime's hands beside the action's own reason. It must not say why: the reason does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from helios_contract.limits import Limits

from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteProfile,
    DeleteRevision,
    DrainRevision,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
    WriteProfile,
)


def jobs_last(actions: Iterable[Action]) -> list[Action]:
    """In their order, but for new Jobs: one that the API refuses ends a pass, and must hold up no pod."""
    return sorted(actions, key=lambda action: isinstance(action, StartJob))


def describe(action: Action) -> str:
    match action:
        case StartJob(job=job):
            return f"Start {job.kind.value} job {job.name}"
        case DeleteJob(name=name):
            return f"Delete job {name}"
        case WriteProfile(row=row):
            return f"Write profile {row.name}"
        case DeleteProfile(name=name):
            return f"Delete profile {name}"
        case CreateRevision(number=number, limits=limits):
            return f"Create revision {number}: {_what(limits)}"
        case ScaleRevision(number=number, replicas=replicas):
            return f"Scale revision {number} to {replicas}"
        case WriteLimits(revision=number, limits=limits):
            return f"Set limits of revision {number}: {_what(limits)}, {limits.max_batch_size} rows"
        case Route(revision=number):
            return f"Route to revision {number}"
        case DrainRevision(number=number):
            return f"Drain revision {number}"
        case DeleteRevision(number=number):
            return f"Delete revision {number}"
        case _:
            assert_never(action)


def _what(limits: Limits) -> str:
    return f"{limits.candidate}, {limits.layer_budget} layers{suffix(limits.precision)}"
