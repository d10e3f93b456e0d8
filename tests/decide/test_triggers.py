"""What starts a reassessment, and what it then rests on, beyond the demo's stories."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from helios_operator.api.types import Decision, Trigger
from helios_operator.decide.plan import StartJob
from helios_operator.decide.snapshot import JobKind

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import second_act
from tests.decide.truth import GENERAL
from tests.decide.world import World


def with_rules(made: World, **changes: object) -> World:
    rules = replace(made.spec.reassessment, **changes)  # type: ignore[arg-type]
    made.spec = replace(made.spec, reassessment=rules)
    made.deployment = replace(made.deployment, spec=made.spec)
    return made


def breach(made: World) -> None:
    """More than half of the last hundred tokens were unsure."""
    pod = next(pod for revision in made.revisions.values() if revision.routed for pod in revision.pods)
    pod._alarm("Breach", "Down", pod.requests, 51.0, made.now)


def test_the_papers_trigger_loads_the_remaining_layers() -> None:
    made = selected(with_rules(world(inline(), general=GENERAL), trigger=Trigger.CONFIDENCE))
    made.serve(30, "prose")
    breach(made)
    made.run(4)
    assert made.active == ("general", 30)
    assert made.kinds == ["Select", "Grow"]


def test_the_papers_trigger_hears_no_audit() -> None:
    made = selected(with_rules(world(general=GENERAL), trigger=Trigger.CONFIDENCE, every_requests=10_000))
    made.serve(120, "code")
    assert made.active == ("general", 24)


def test_the_audits_trigger_hears_no_breach() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.serve(30, "prose")
    breach(made)
    made.run(4)
    assert made.active == ("general", 24)
    assert made.status.reassessment.trigger is None


@pytest.mark.parametrize("trigger", Trigger)
def test_traffic_shifts_by_the_alarms_that_are_listened_to(trigger: Trigger) -> None:
    """By no other: a counter that calls now and then would have everything measured again and again."""
    made = selected(with_rules(world(inline(), general=GENERAL), trigger=trigger))
    made.serve(30, "prose")
    breach(made)
    made.run(1)
    assert (made.status.reassessment.shifted_at is not None) == (trigger is Trigger.CONFIDENCE)


def test_a_breach_at_full_depth_switches_by_what_is_profiled() -> None:
    made = with_rules(second_act(), trigger=Trigger.CONFIDENCE)
    made.serve(30, "prose")
    breach(made)
    made.run(15)
    assert made.active == ("big", 30)


def test_one_pods_alarm_is_enough_among_several() -> None:
    made = world(general=GENERAL)
    made.spec = replace(made.spec, replicas=2)
    made.deployment = replace(made.deployment, spec=made.spec)
    made.memory_mib = 100_000
    selected(made)
    made.serve(20, "prose")
    made.serve(160, "code")
    assert made.active == ("general", 27)
    assert {pod.limits.layer_budget for pod in made.revisions[1].pods} == {27}


def test_without_audits_every_depth_is_measured_on_the_new_prompts() -> None:
    made = selected(with_rules(world(general=GENERAL), audit_percent=0))
    made.serve(60, "prose")
    before = len(made.actions)
    made.serve(120, "code")
    assert made.active == ("general", 27)
    kinds = [action.job.kind for action in made.actions[before:] if isinstance(action, StartJob)]
    assert kinds == [JobKind.QUALITY]


def test_the_interval_is_enough_when_nothing_else_happens() -> None:
    made = selected(with_rules(world(inline(), general=GENERAL), interval=timedelta(minutes=10)))
    before = made.status.reassessment.last_time
    made.run(700, every=20)
    assert made.status.reassessment.last_time > before
    assert made.status.reassessment.decision is Decision.KEEP


def test_requests_are_counted_over_all_pods_and_across_restarts() -> None:
    made = selected(with_rules(world(inline(), general=GENERAL), every_requests=50))
    first = made.status.reassessment.last_time
    made.serve(30, "prose")
    made.revisions[1].pods[0].crash()
    made.run(5)
    made.serve(30, "prose")
    assert made.status.reassessment.last_time == first
    made.serve(30, "prose")
    assert made.status.reassessment.last_time > first


def test_too_few_audits_are_said_to_be_too_few() -> None:
    made = selected(with_rules(world(inline(), general=GENERAL), audit_percent=5, every_requests=60))
    made.serve(70, "prose")
    memory = made.status.reassessment
    assert (memory.decision, memory.reason) == (Decision.INCONCLUSIVE, "NoEvidence")
    assert "of 8 audited requests" in memory.message
