"""A plan is carried out in an order of which every prefix is a state that the next pass can go on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helios_operator.api.types import DeploymentStatus
from helios_operator.decide.plan import Action, DeleteJob, Event, Plan, Route, Verdict, WriteProfile
from helios_operator.passes.actions import describe
from helios_operator.passes.hands import carry_out

from tests.decide.builders import inline, selected, world
from tests.decide.truth import BARE_BIG

WHY = Verdict(True, "Reason", "a sentence")


class Recorder:
    """Hands that write down what they are asked, by the name of the method."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def act(_: object) -> bool:
            self.done.append(name)
            return False

        return act

    async def tell_of(self, action: Action) -> None:
        self.told.append(describe(action))

    async def tell(self, event: Event) -> None:
        self.told.append(event.reason)


async def test_what_a_job_found_is_written_before_it_goes() -> None:
    row = next(iter(selected(world(inline(), 80, big=BARE_BIG)).rows.values()))
    actions = (DeleteJob(name="t-1", why=WHY), WriteProfile(row=row, why=WHY), Route(revision=2, why=WHY))
    plan = Plan(actions, DeploymentStatus(), events=(Event("Normal", "Scaled", "to 2 pods"),))
    hands = Recorder()
    assert await carry_out(plan, hands)
    assert hands.done == ["write_profile", "route", "write_status", "adopt_rows", "delete_job"]
    assert hands.told == [f"Write profile {row.name}", "Route to revision 2", "Delete job t-1", "Scaled"]


async def test_a_plan_of_nothing_writes_nothing() -> None:
    plan = Plan((), DeploymentStatus())
    assert not await carry_out(plan, Recorder())
    assert await carry_out(replace(plan, actions=(Route(revision=1, why=WHY),)), Recorder())
