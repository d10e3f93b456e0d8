"""What a person may ask for or forbid: by annotation, by the policy, by suspending and pausing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from helios_operator.api.annotations import PAUSED, REASSESS, SWITCH_TO, reassess_value, switch_value
from helios_operator.api.types import Decision, MaintenanceWindow, Selection, SelectionPolicy

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition, second_act
from tests.decide.truth import CODE, GENERAL, PROSE
from tests.decide.world import World


def ask_to_switch(made: World, candidate: str) -> None:
    made.annotate(SWITCH_TO, switch_value(candidate, made.now))


def test_a_switch_by_hand_is_made_whatever_the_objective_says() -> None:
    made = selected(world(prose=PROSE, code=CODE))
    made.serve(30, "prose")
    ask_to_switch(made, "code")
    made.run(5)
    assert made.active[0] == "code"
    assert made.status.history[-1].reason == "ByHand"


def test_it_is_obeyed_once() -> None:
    made = second_act()
    ask_to_switch(made, "big")
    made.run(20)
    assert made.active == ("big", 30)
    ask = made.deployment.annotations[SWITCH_TO]
    made.serve(400, "prose")
    assert made.active == ("small", 26)
    assert made.deployment.annotations[SWITCH_TO] == ask


def test_it_may_come_before_anything_is_measured() -> None:
    made = world(inline(), 85, **{"general": GENERAL, "prose": PROSE})
    made.run(10)
    ask_to_switch(made, "prose")
    made.run(5)
    assert made.active[0] == "prose"


def test_an_unknown_candidate_is_named_and_nothing_changes() -> None:
    made = selected(world(general=GENERAL))
    ask_to_switch(made, "nobody")
    made.run(3)
    assert made.active == ("general", 24)
    assert made.status.reassessment.decision is Decision.BLOCKED
    assert "nobody cannot be served: no such candidate" in made.status.reassessment.message


def test_a_reassessment_by_hand_is_made_once() -> None:
    made = selected(world(general=GENERAL))
    before = made.status.reassessment.last_time
    made.annotate(REASSESS, reassess_value(made.now))
    made.run(3)
    after = made.status.reassessment.last_time
    assert after > before
    made.run(10)
    assert made.status.reassessment.last_time == after


def test_every_reassessment_by_hand_ends_in_an_event() -> None:
    """Though it comes to what the last one came to."""
    made = selected(world(inline(), general=GENERAL))
    ends: list[str] = []
    made.watch.append(
        lambda w, s, plan: ends.extend(
            event.message for event in plan.events if "by hand ended with" in event.message
        )
    )
    for _ in range(3):
        made.annotate(REASSESS, reassess_value(made.now))
        made.run(5)
    assert len(ends) == 3
    assert all(said.startswith("the request by hand ended with Keep: general at 24 layers") for said in ends)
    for _ in range(2):
        ask_to_switch(made, "nobody")
        made.run(3)
    assert (
        ends[3:] == ["the request by hand ended with Blocked: nobody cannot be served: no such candidate"] * 2
    )


def test_a_mistyped_request_starts_nothing() -> None:
    made = selected(world(general=GENERAL))
    before = made.status.reassessment
    made.annotate(REASSESS, "now, please")
    made.annotate(SWITCH_TO, "general")
    made.run(3)
    assert made.status.reassessment == before


def test_advisory_says_what_it_would_do_and_does_nothing() -> None:
    made = world(inline(), general=GENERAL)
    made.spec = replace(made.spec, selection=Selection(SelectionPolicy.ADVISORY))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(40)
    assert made.active == ("general", 30)
    memory = made.status.reassessment
    assert (memory.decision, memory.reason) == (Decision.BLOCKED, "Advisory")
    assert "Select to general at 24 is wanted" in memory.message


def test_advice_is_given_again_at_every_reassessment() -> None:
    made = selected(world(general=GENERAL))
    made.edit(selection=Selection(SelectionPolicy.ADVISORY))
    made.serve(100, "code")
    assert made.active == ("general", 24)
    assert "Grow to general at 27 is wanted" in made.status.reassessment.message


def test_paused_holds_every_change_and_lets_go() -> None:
    made = selected(world(general=GENERAL))
    made.edit(rollout=replace(made.spec.rollout, paused=True))
    made.serve(100, "code")
    assert made.active == ("general", 24)
    assert condition(made, "Progressing") == ("False", "Paused")
    made.edit(rollout=replace(made.spec.rollout, paused=False))
    made.serve(60, "code")
    assert made.active == ("general", 27)


@pytest.mark.parametrize("value", ["true", "", "since Monday"])
def test_paused_by_an_annotation_too(value: str) -> None:
    """What keeps the spec as Git has it leaves annotations of others alone."""
    made = selected(world(general=GENERAL))
    annotate(made, value)
    made.serve(100, "code")
    assert made.active == ("general", 24)
    assert condition(made, "Progressing") == ("False", "Paused")
    assert "helios.dev/paused" in made.status.conditions[1].message
    assert "helios.dev/paused" in made.status.reassessment.message
    annotate(made, "false")
    made.serve(60, "code")
    assert made.active == ("general", 27)


def annotate(made: World, value: str) -> None:
    made.deployment = replace(made.deployment, annotations={PAUSED: value})


def test_paused_holds_a_successor_that_is_ready() -> None:
    made = second_act()
    made.serve(60, "prose")
    ask_to_switch(made, "big")
    made.step()
    made.edit(rollout=replace(made.spec.rollout, paused=True))
    made.run(20)
    assert made.active == ("small", 26)
    made.edit(rollout=replace(made.spec.rollout, paused=False))
    made.run(20)
    assert made.active == ("big", 30)


def test_suspended_holds_repairs_and_says_so() -> None:
    made = selected(world(general=GENERAL))
    made.edit(reassessment=replace(made.spec.reassessment, suspend=True))
    made.serve(100, "code")
    assert made.active == ("general", 24)
    assert made.status.reassessment.reason == "Suspended"


@pytest.mark.parametrize(("hour", "ends_at"), [(5, ("small", 26)), (6, ("big", 30))])
def test_switching_models_waits_for_the_maintenance_window(hour: int, ends_at: tuple[str, int]) -> None:
    made = second_act()
    made.serve(60, "prose")
    assert made.now < datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
    window = MaintenanceWindow(f"0 {hour} * * *", timedelta(minutes=50))
    made.edit(reassessment=replace(made.spec.reassessment, maintenance_window=window))
    made.serve(150, "code")
    assert made.active == ends_at
    if ends_at[0] == "small":
        assert made.status.reassessment.reason == "OutsideWindow"


def test_growing_does_not_wait_for_the_maintenance_window() -> None:
    made = selected(world(general=GENERAL))
    window = MaintenanceWindow("0 2 * * *", timedelta(hours=1))
    made.edit(reassessment=replace(made.spec.reassessment, maintenance_window=window))
    made.serve(100, "code")
    assert made.active == ("general", 27)


def test_pinned_weighs_the_depths_of_one_candidate_only() -> None:
    made = world(prose=PROSE, code=CODE)
    made.spec = replace(made.spec, selection=Selection(SelectionPolicy.PINNED, "prose"))
    made.deployment = replace(made.deployment, spec=made.spec)
    selected(made)
    assert made.active == ("prose", 24)
    assert made.status.history[-1].reason == "Pinned"
    made.serve(120, "code")
    assert made.active == ("prose", 30)
