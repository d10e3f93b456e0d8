"""What goes wrong: limits refused, successors that do not start, Jobs that fail, passes that are lost, pods
that crash."""

from __future__ import annotations

import pytest
from helios_contract.limits import Limits
from helios_operator.decide.plan import CreateRevision, DeleteRevision, Route, StartJob, WriteLimits
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition, second_act
from tests.decide.truth import BARE_BIG, BARE_SMALL, GENERAL, PROSE


def refuse_27(limits: Limits) -> str:
    return "27 layers need 700 MiB, 640 MiB are left" if limits.layer_budget == 27 else ""


def test_refused_limits_are_written_back_and_tried_again_later_and_later() -> None:
    made = selected(world(general=GENERAL))
    made.refuses = refuse_27
    made.serve(100, "code")
    document = next(iter(made.revisions.values())).limits
    assert made.active == ("general", 24)
    assert document.layer_budget == 24
    failed = [entry for entry in made.status.history if entry.result == "Failed"]
    assert "27 layers need 700 MiB" in failed[0].message
    first = made.status.reassessment.backoff_seconds
    assert first >= 30
    made.serve(400, "code")
    assert made.status.reassessment.backoff_seconds > first
    assert made.kinds == ["Select"]


def test_after_a_refusal_the_change_is_made_when_the_pod_can() -> None:
    made = selected(world(general=GENERAL))
    made.refuses = refuse_27
    made.serve(60, "code")
    made.refuses = lambda limits: ""
    made.serve(300, "code")
    assert made.active == ("general", 27)


def test_a_pod_that_refuses_everything_is_asked_less_and_less_often() -> None:
    made = selected(world(general=GENERAL))
    made.refuses, made.refuses_all = refuse_27, "the disk is full"
    made.serve(60, "code")
    made.run(300, every=1)
    writes = [action for action in made.actions if isinstance(action, WriteLimits)]
    assert len(writes) < 12
    made.refuses, made.refuses_all = (lambda limits: ""), ""
    made.run(600, every=5)
    made.serve(200, "code")
    assert made.active == ("general", 27)


def test_a_refusal_is_said() -> None:
    made = selected(world(general=GENERAL))
    made.refuses = refuse_27
    reasons: set[str] = set()
    made.watch.append(lambda w, s, plan: reasons.update(a.why.reason for a in plan.actions))
    made.serve(60, "code")
    assert "LimitsRefused" in reasons
    assert condition(made, "Available")[0] == "True"


def test_a_successor_that_does_not_start_is_deleted_and_the_old_model_serves_on() -> None:
    made = second_act()
    made.serve(60, "prose")
    made.starts = lambda limits: limits.candidate != "big"
    made.serve(150, "code")
    assert made.active == ("small", 26)
    assert made.lost == 0
    failed = [entry for entry in made.status.history if entry.result == "Failed"]
    assert failed[0].to.candidate == "big"
    assert "the checkpoint does not load" in failed[0].message
    assert made.status.rollout.phase == "Failed"


def test_a_successor_that_only_takes_long_is_waited_for_until_the_deadline() -> None:
    made = second_act()
    made.serve(60, "prose")
    made.start_seconds = 10_000
    made.serve(150, "code")
    assert len(made.revisions) == 2
    made.run(900, every=10)
    assert made.active == ("small", 26)
    assert "not ready after 900 s" in made.status.history[-1].message


def test_a_failed_quality_job_is_tried_again_and_then_remembered() -> None:
    made = world(inline(), prose=PROSE, general=GENERAL)
    made.fails = lambda job: "the tokenizer is missing" if job.kind is JobKind.QUALITY else ""
    made.run(120)
    starts = [a for a in made.actions if isinstance(a, StartJob) and a.job.kind is JobKind.QUALITY]
    assert len(starts) == 2
    assert made.active == ("general", 30)
    assert {c.state for c in made.status.candidates} == {"Failed"}
    assert condition(made, "Profiled") == ("False", "ProfileFailed")
    made.run(600, every=10)
    assert len([a for a in made.actions if isinstance(a, StartJob) and a.job.kind is JobKind.QUALITY]) == 2


def test_a_failed_measurement_is_tried_again_when_asked_by_hand() -> None:
    made = world(inline(), general=GENERAL)
    made.fails = lambda job: "out of disk" if job.kind is JobKind.QUALITY else ""
    made.run(120)
    made.fails = lambda job: ""
    made.annotate("helios.dev/reassess", made.now.isoformat())
    made.run(60)
    assert made.active == ("general", 24)


def test_a_backbone_that_cannot_be_timed_is_left_out() -> None:
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    made.fails = lambda job: "illegal instruction" if is_small(job) and job.kind is JobKind.TIMING else ""
    made.run(120)
    assert made.active == ("big", 30)
    assert {c.name: c.state for c in made.status.candidates} == {"big": "Profiled", "small": "Failed"}
    assert made.status.reassessment.last_time is not None


def is_small(job: JobSpec) -> bool:
    return any(candidate.name == "small" for candidate in job.candidates)


def test_live_prompts_that_are_gone_are_replaced_by_newer_ones() -> None:
    made = world(general=GENERAL)
    made.fails = lambda job: "the pod does not hold this set any more" if job.kind is JobKind.QUALITY else ""
    made.run(10)
    made.serve(60, "prose")
    made.run(30)
    made.fails = lambda job: ""
    made.serve(300, "prose")
    assert made.active == ("general", 24)


@pytest.mark.parametrize("lost", range(1, 12))
def test_a_pass_whose_status_is_lost_changes_nothing_in_the_end(lost: int) -> None:
    """The runtime dies between acting and writing the status, at any of the passes that act."""
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    acted = 0
    for _ in range(200):
        plan = made.look()
        acted += bool(plan.actions)
        made.apply(plan, write_status=not (plan.actions and acted == lost))
    assert made.active == ("small", 26)
    assert len(made.revisions) == 1
    assert sum(isinstance(action, CreateRevision) for action in made.actions) <= 3


def test_a_crashed_pod_comes_back_with_its_document_and_nothing_is_decided() -> None:
    made = selected(world(general=GENERAL))
    before = len(made.actions)
    pod = next(iter(made.revisions.values())).pods[0]
    pod.crash()
    made.run(10)
    assert made.active == ("general", 24)
    assert pod.limits.layer_budget == 24
    assert not [
        a for a in made.actions[before:] if isinstance(a, WriteLimits | CreateRevision | DeleteRevision)
    ]


def test_an_alarm_that_vanishes_with_its_pod_ends_the_reassessment() -> None:
    made = selected(world(general=GENERAL))
    pod = next(iter(made.revisions.values())).pods[0]
    pod._alarm("Audit", "Down", pod.requests, 9.0, made.now)
    made.step()
    assert made.status.reassessment.trigger == "Alarm"
    pod.crash()
    made.run(10)
    assert made.status.reassessment.trigger is None
    assert made.active == ("general", 24)


def test_traffic_moves_once() -> None:
    made = second_act()
    assert sum(isinstance(action, Route) for action in made.actions) == 2
