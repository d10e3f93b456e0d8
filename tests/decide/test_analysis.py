"""A change is watched before it is kept, where the spec asks for it; a bad one is taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_operator.api.types import Analysis, Bounds, Selection, SelectionPolicy
from helios_operator.decide.plan import CreateRevision, Route

from tests.decide.builders import inline, selected, world
from tests.decide.test_by_hand import ask_to_switch
from tests.decide.test_stories import condition, second_act
from tests.decide.truth import GENERAL
from tests.decide.world import World

ANALYSIS = Analysis(timedelta(seconds=5), count=4, failure_limit=1)


def watched(made: World, analysis: Analysis = ANALYSIS) -> World:
    """Under a latency that every pod keeps, unless it is slow."""
    made.edit(slo=replace(made.spec.slo, itl_ms=100), rollout=replace(made.spec.rollout, analysis=analysis))
    made.run(3)
    made.serve(40, "prose")
    return made


def slow_from(made: World, number: int) -> None:
    """Pods of a revision answer late from now on."""

    def slow(world: World, *_: object) -> None:
        for pod in world.revisions[number].pods if number in world.revisions else ():
            pod.slow = True

    made.watch.append(slow)


def test_a_good_change_is_kept_after_its_looks() -> None:
    made = watched(second_act())
    number = max(made.revisions) + 1
    ask_to_switch(made, "big")
    made.run(5)
    assert made.active == ("big", 30)
    assert condition(made, "Progressing") == ("True", "Analysing")
    assert len(made.revisions) == 2  # the old one waits in case
    made.serve(40, "prose")
    made.run(20)
    assert made.status.rollout.phase == "Completed"
    assert (made.status.rollout.looks, made.status.rollout.bad_looks) == (4, 0)
    assert "0 of 4 checks failed, 40 requests since the change" in made.status.rollout.message
    assert list(made.revisions) == [number]


def test_a_slow_successor_is_taken_back() -> None:
    made = watched(second_act())
    old, new = max(made.revisions), max(made.revisions) + 1
    slow_from(made, new)
    ask_to_switch(made, "big")
    made.run(5)
    made.serve(100, "prose")
    assert made.active == ("small", 26)
    assert made.status.rollout.phase == "RolledBack"
    assert made.status.history[-1].result == "RolledBack"
    assert "2 of 3 checks failed: p95 ttft" in made.status.history[-1].message
    assert made.status.reassessment.backoff_seconds >= 30
    made.run(20)
    assert list(made.revisions) == [old]
    assert made.lost == 0


def test_slow_limits_are_written_back() -> None:
    made = watched(selected(world(inline(), general=GENERAL)))
    assert made.active == ("general", 24)
    made.edit(limits=replace(made.spec.limits, layer_budget=Bounds(min=26)))
    made.run(2)
    assert made.active == ("general", 27)
    slow_from(made, 1)
    made.serve(60, "prose")
    assert made.active == ("general", 24)
    assert made.status.rollout.phase == "RolledBack"
    assert made.status.history[-1].result == "RolledBack"
    assert sum(isinstance(action, CreateRevision) for action in made.actions) == 1


def test_without_automatic_rollback_it_stays_and_says_so() -> None:
    made = watched(second_act(), replace(ANALYSIS, auto_rollback=False))
    slow_from(made, max(made.revisions) + 1)
    ask_to_switch(made, "big")
    made.run(5)
    made.serve(100, "prose")
    assert made.active == ("big", 30)
    assert condition(made, "SLOMet") == ("False", "LatencyMissed")
    assert made.status.history[-1].result == "Promoted"


def test_a_change_of_what_missed_its_slo_is_not_taken_back() -> None:
    made = watched(second_act())
    slow_from(made, max(made.revisions))
    made.serve(40, "prose")
    assert condition(made, "SLOMet") == ("False", "LatencyMissed")
    slow_from(made, max(made.revisions) + 1)
    ask_to_switch(made, "big")
    made.run(5)
    made.serve(100, "prose")
    assert made.active == ("big", 30)


def test_a_person_does_not_wait_for_the_looks() -> None:
    made = watched(second_act(), replace(ANALYSIS, interval=timedelta(hours=1)))
    ask_to_switch(made, "big")
    made.run(5)
    assert made.active == ("big", 30)
    ask_to_switch(made, "small")
    made.run(10)
    assert made.active == ("small", 26)


def test_an_edit_of_the_spec_does_not_wait_for_the_looks() -> None:
    """One that led to the change does not end its looks, one that comes later does."""
    made = watched(second_act(), replace(ANALYSIS, interval=timedelta(hours=1)))
    made.edit(selection=Selection(SelectionPolicy.PINNED, "big"))
    made.run(10)
    assert made.active == ("big", 30)
    assert condition(made, "Progressing") == ("True", "Analysing")
    made.edit(selection=Selection(SelectionPolicy.PINNED, "small"))
    made.run(10)
    assert made.active == ("small", 26)


def test_a_pass_that_was_lost_after_the_way_back_is_made_up_for() -> None:
    """Traffic was moved, and nothing written."""
    made = watched(second_act())
    old, new = max(made.revisions), max(made.revisions) + 1
    slow_from(made, new)
    ask_to_switch(made, "big")
    made.run(5)
    for _ in range(200):
        plan = made.look(0.2)
        is_back = any(isinstance(action, Route) and action.number == old for action in plan.actions)
        made.apply(plan, write_status=not is_back)
        if is_back:
            break
        made.serve(4, "prose")
    made.run(30)
    assert list(made.revisions) == [old]
    assert made.active == ("small", 26)
    assert made.status.rollout.phase != "Analysing" or made.status.rollout.revision == old
