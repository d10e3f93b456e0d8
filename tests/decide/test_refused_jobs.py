"""A Job that the API refuses, or that no node takes, keeps nobody from serving."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helios_operator.decide.plan import CreateRevision, StartJob
from helios_operator.decide.policy import DEFAULT
from helios_operator.decide.snapshot import JobKind
from helios_operator.passes.actions import jobs_last

from tests.decide.builders import inline, world
from tests.decide.test_stories import condition
from tests.decide.truth import BARE_BIG, BARE_SMALL, GENERAL, candidate
from tests.decide.world import START, World

PATIENCE = DEFAULT.reference_patience.total_seconds()


def one_card(**models: object) -> World:
    made = world(inline(), 85, **(models or {"general": GENERAL}))  # type: ignore[arg-type]
    made.cards = 1
    return made


def refused(made: World, kind: JobKind) -> None:
    made.starts_jobs = lambda job: job.kind is not kind


def without_node(made: World, kind: JobKind) -> None:
    made.stuck = lambda job: "Unschedulable: 0/3 nodes are available" if job.kind is kind else ""


@pytest.mark.parametrize("prevent", [refused, without_node])
def test_the_reference_waits_for_a_timing_that_does_not_come_and_then_starts(prevent) -> None:  # type: ignore[no-untyped-def]
    made = one_card()
    prevent(made, JobKind.TIMING)
    made.run(PATIENCE / 2)
    assert not made.revisions
    made.cards = 2 if prevent is without_node else 1
    made.run(PATIENCE)
    assert made.active == ("general", 30)
    assert condition(made, "Available")[0] == "True"


def test_a_timing_that_runs_is_waited_for_however_long_it_takes() -> None:
    made = one_card(big=BARE_BIG, small=BARE_SMALL)
    made.job_seconds = 4 * PATIENCE
    made.run(6 * PATIENCE, every=2)
    assert not made.revisions
    made.run(8 * PATIENCE, every=2)
    assert made.active is not None


@pytest.mark.parametrize("prevent", [refused, without_node])
def test_a_quality_job_that_does_not_come_is_not_waited_for(prevent) -> None:  # type: ignore[no-untyped-def]
    made = world(inline(), general=GENERAL)
    prevent(made, JobKind.QUALITY)
    made.run(20)
    assert made.active == ("general", 30)


@pytest.mark.parametrize("prevent", [refused, without_node])
def test_one_that_cannot_be_looked_at_keeps_no_other_from_serving(prevent) -> None:  # type: ignore[no-untyped-def]
    """The first pod is gone, and a candidate was added meanwhile."""
    made = world(inline(), 85, big=BARE_BIG)
    made.truth |= world(inline(), 85, small=BARE_SMALL).truth
    made.run(20)
    prevent(made, JobKind.INSPECT)
    made.edit(candidates=(*made.spec.candidates, candidate("small", BARE_SMALL)))
    made.run(1)
    made.revisions.clear()
    made.run(PATIENCE + 10)
    assert made.active == ("big", 30)


def test_who_looks_at_the_candidates_says_what_it_waits_for() -> None:
    made = world(inline(), general=GENERAL)
    without_node(made, JobKind.INSPECT)
    made.run(5)
    assert condition(made, "Available") == ("False", "Starting")
    message = next(c.message for c in made.status.conditions if c.type == "Available")
    assert "0/3 nodes are available" in message


def test_jobs_start_after_everything_else() -> None:
    """An API call that fails ends a pass: the pods must not come behind the Jobs."""
    made = world(inline(), general=GENERAL)
    made.cards = 3
    mixed = []
    made.watch.append(lambda w, s, plan: mixed.append(plan.actions) if len(plan.actions) > 1 else None)
    made.run(20)
    both = [actions for actions in mixed if {StartJob, CreateRevision} <= {type(a) for a in actions}]
    assert both
    for actions in both:
        ordered = jobs_last(actions)
        assert isinstance(ordered[-1], StartJob)
        assert not isinstance(ordered[0], StartJob)
        assert sorted(map(id, ordered)) == sorted(map(id, actions))


def test_somebody_looks_again_when_the_patience_ends() -> None:
    made = one_card()
    refused(made, JobKind.TIMING)
    made.run(5)
    plan = made.look(0)
    assert plan.requeue_after_seconds is not None
    assert plan.requeue_after_seconds <= PATIENCE - (made.now - START - timedelta(seconds=5)).total_seconds()
