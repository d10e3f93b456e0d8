"""When a deployment needs fewer looks: only where nothing is under way."""

from __future__ import annotations

from dataclasses import replace

from helios_operator.decide.snapshot import JobPhase, Snapshot
from helios_operator.local.rest import is_at_rest

from tests.decide.builders import inline, selected, world
from tests.decide.truth import GENERAL


def test_what_serves_and_waits_for_nothing_is_at_rest() -> None:
    made = world(inline(), 90, general=GENERAL)
    assert not is_at_rest(made.snapshot())
    snapshot = selected(made).snapshot()
    assert is_at_rest(snapshot)
    [revision] = snapshot.revisions
    assert not is_at_rest(replace(snapshot, revisions=(revision, revision)))
    assert not is_at_rest(replace(snapshot, revisions=(replace(revision, pods=()),)))
    waiting = tuple(replace(pod, ready=False) for pod in revision.pods)
    assert not is_at_rest(replace(snapshot, revisions=(replace(revision, pods=waiting),)))


def test_what_a_job_measures_is_not() -> None:
    made = world(inline(), 90, general=GENERAL)
    busy: Snapshot | None = None
    for _ in range(30):
        made.run(1)
        if any(job.phase is JobPhase.RUNNING for job in made.snapshot().jobs):
            busy = made.snapshot()
    assert busy is not None
    assert not is_at_rest(busy)
