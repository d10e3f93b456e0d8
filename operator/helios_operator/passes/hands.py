"""Carries a Plan out, whoever does the work: which method for which action, and in which order.

Called by every runtime's pass, between `decide` and `settle`. The order is such that an end at any moment
leaves a state that the next pass reads: what a Job found stands in the table and the status before the Job
goes. It must not weigh anything: a plan that says delete is obeyed.
"""

from __future__ import annotations

from typing import Protocol, assert_never

from helios_operator.api.models import Model
from helios_operator.api.types import DeploymentStatus
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteProfile,
    DeleteRevision,
    DrainRevision,
    Event,
    Plan,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
    WriteProfile,
)
from helios_operator.passes.actions import jobs_last


class Hands(Protocol):
    """What a runtime can do to its world, for one pass over one HeliosDeployment. Every method may be called
    again for what is done already; none tells a pod or starts a process: that is to settle. An action's
    method raises RefusedError where its world does not take it."""

    async def start_job(self, action: StartJob) -> None: ...

    async def delete_job(self, action: DeleteJob) -> None: ...

    async def write_profile(self, action: WriteProfile) -> None: ...

    async def delete_profile(self, action: DeleteProfile) -> None: ...

    async def create_revision(self, action: CreateRevision) -> None: ...

    async def scale_revision(self, action: ScaleRevision) -> None: ...

    async def write_limits(self, action: WriteLimits) -> None: ...

    async def route(self, action: Route) -> None: ...

    async def drain_revision(self, action: DrainRevision) -> None: ...

    async def delete_revision(self, action: DeleteRevision) -> None: ...

    async def write_status(self, status: DeploymentStatus) -> bool:
        """False when there was nothing (yet) to write."""
        ...

    async def adopt_rows(self, status: DeploymentStatus) -> None:
        """Rows that the status names, and that were measured for another deployment."""
        ...

    async def write_model(self, model: Model) -> bool:
        """The status of an entry of the catalogue. False when there was nothing to write."""
        ...

    async def tell_of(self, action: Action) -> None:
        """Says, for people, what was done and why."""
        ...

    async def tell(self, event: Event) -> None:
        """Says, for people, what became of it."""
        ...


class RefusedError(Exception):
    """What an action asks for is not to be had now: the hands know why, and say it in the status. What does
    not rest on it goes on."""


async def carry_out(plan: Plan, hands: Hands) -> bool:
    """True when something was written."""
    removals: list[Action] = [action for action in plan.actions if isinstance(action, DeleteJob)]
    others = jobs_last(action for action in plan.actions if not isinstance(action, DeleteJob))
    refused: list[Action] = [action for action in others if not await do(action, hands)]
    written = await hands.write_status(plan.status)
    await hands.adopt_rows(plan.status)
    for model in plan.models:
        written |= bool(await hands.write_model(model))
    if any(isinstance(action, WriteProfile) for action in refused):
        removals = []  # a result that is not kept yet keeps its Job
    refused += [removal for removal in removals if not await do(removal, hands)]
    for event in plan.events:
        await hands.tell(event)
    return written or len(others) + len(removals) > len(refused)


async def do(action: Action, hands: Hands) -> bool:
    """One action of a plan, or of nobody's. False: it was refused."""
    try:
        await _carry_out(action, hands)
    except RefusedError:
        return False
    await hands.tell_of(action)
    return True


async def _carry_out(action: Action, hands: Hands) -> None:
    match action:
        case StartJob():
            await hands.start_job(action)
        case DeleteJob():
            await hands.delete_job(action)
        case WriteProfile():
            await hands.write_profile(action)
        case DeleteProfile():
            await hands.delete_profile(action)
        case CreateRevision():
            await hands.create_revision(action)
        case ScaleRevision():
            await hands.scale_revision(action)
        case WriteLimits():
            await hands.write_limits(action)
        case Route():
            await hands.route(action)
        case DrainRevision():
            await hands.drain_revision(action)
        case DeleteRevision():
            await hands.delete_revision(action)
        case _:
            assert_never(action)
