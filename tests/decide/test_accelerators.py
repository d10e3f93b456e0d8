"""Few accelerators: what is measured on them, what beside them, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.decide.plan import CreateRevision, StartJob
from helios_operator.decide.snapshot import JobKind

from tests.decide.builders import LIVE, inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.truth import BARE_BIG, BARE_SMALL, candidate
from tests.decide.world import World


def with_cards(made: World, cards: int) -> World:
    """Nothing may ever take one that is not there."""
    made.cards = cards

    def never_too_many(w: World, snapshot: object, plan: object) -> None:
        assert w.cards is None or w.cards_taken <= w.cards

    made.watch.append(never_too_many)
    return made


def order(made: World) -> list[str]:
    """What was begun, one after the other."""
    begun = []
    for action in made.actions:
        if isinstance(action, StartJob):
            begun.append(action.job.kind.value + (" on the CPU" if action.job.on_cpu else ""))
        elif isinstance(action, CreateRevision):
            begun.append("serving")
    return begun


def test_one_is_measured_on_first_and_then_served_on() -> None:
    made = with_cards(world(inline(), 85, big=BARE_BIG, small=BARE_SMALL), 1)
    made.run(4)
    progressing = next(c for c in made.status.conditions if c.type == "Progressing")
    assert "the candidates are timed first, on the accelerator" in progressing.message
    made.run(60)
    assert [step for step in order(made) if "CPU" not in step] == ["Inspect", "Timing", "Timing", "serving"]
    assert order(made).count("Quality on the CPU") == 2
    assert condition(made, "Ready")[0] == "True"
    assert made.active is not None


def test_one_is_enough_when_the_prompts_are_those_of_the_traffic() -> None:
    made = selected(with_cards(world(LIVE, 85, big=BARE_BIG, small=BARE_SMALL), 1))
    assert order(made)[:4] == ["Inspect", "Timing", "Timing", "serving"]
    assert set(order(made)[4:]) == {"Quality on the CPU"}
    assert made.lost == 0


@pytest.mark.parametrize("cards", [2, 3])
def test_where_there_are_more_serving_does_not_wait(cards: int) -> None:
    made = with_cards(world(inline(), 85, big=BARE_BIG, small=BARE_SMALL), cards)
    made.run(60)
    assert order(made)[:3] == ["Inspect", "Timing", "serving"]
    assert condition(made, "Ready")[0] == "True"


def test_a_model_that_comes_later_waits_and_says_for_what() -> None:
    made = selected(with_cards(world(inline(), 85, small=BARE_SMALL), 1))
    made.run(20)
    made.truth |= world(inline(), 85, big=BARE_BIG).truth
    made.edit(candidates=(*made.spec.candidates, candidate("big", BARE_BIG)))
    made.run(60)
    assert condition(made, "Profiled") == ("False", "NoCapacityForProfiling")
    profiled = next(c for c in made.status.conditions if c.type == "Profiled")
    assert "while spec.replicas is 0" in profiled.message
    assert made.active is not None
    made.edit(replicas=0)
    made.run(20)
    made.edit(replicas=1)
    made.run(60)
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")


def test_a_timing_that_fails_does_not_keep_serving_from_starting() -> None:
    made = with_cards(world(inline(), 85, big=BARE_BIG), 1)
    made.fails = lambda job: "out of memory" if job.kind is JobKind.TIMING else ""
    made.spec = replace(made.spec, profiling=replace(made.spec.profiling, backoff_limit=1))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(120)
    assert made.active == ("big", 30)


def looked_at_with_none_free(made: World) -> World:
    """Inspected; what comes after that does not end."""
    made.accelerators_free = 0
    made.job_seconds = 1000
    made.run(3)
    for name, (job, _) in list(made.jobs.items()):
        made.jobs[name] = (job, made.now)
    return made


def test_with_none_free_the_first_job_asks_the_cluster_for_one() -> None:
    """Nothing else would: an autoscaler adds a node for a pod that waits."""
    made = looked_at_with_none_free(world(inline(), 85, big=BARE_BIG))
    made.run(20)
    assert order(made) == ["Inspect", "Timing"]


def test_a_job_that_waits_for_a_node_is_told_of_beside_those_that_wait_for_it() -> None:
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    made.spec = replace(made.spec, profiling=replace(made.spec.profiling, max_parallelism=2))
    made.deployment = replace(made.deployment, spec=made.spec)
    looked_at_with_none_free(made).run(2)
    for name, (job, ends) in list(made.jobs.items()):
        if job.spec.kind is JobKind.TIMING:
            made.jobs[name] = (replace(job, message="Insufficient example.com/gpu"), ends)
    made.run(2)
    assert order(made) == ["Inspect", "Timing"]
    assert condition(made, "Profiled") == ("False", "ProfilingRunning")
    profiled = next(c for c in made.status.conditions if c.type == "Profiled")
    assert "Insufficient example.com/gpu" in profiled.message
    assert "the accelerators are reserved for earlier Jobs" in profiled.message
