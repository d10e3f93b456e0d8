"""Pods that serve and tell nothing: it is said since when nobody knows."""

from __future__ import annotations

from helios_operator.api.timestamps import format_time

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.truth import GENERAL


def test_a_blind_loop_says_since_when() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.serve(40, "prose")
    assert condition(made, "SLOMet") == ("True", "WithinTarget")
    made.misses = lambda pod: True
    made.step()
    began = made.now
    made.run(60)
    assert made.status.reassessment.blind_since == began
    told = next(c.message for c in made.status.conditions if c.type == "SLOMet")
    assert condition(made, "SLOMet") == ("Unknown", "InsufficientData")
    assert told.startswith(f"no data since {format_time(began.replace(microsecond=0))}: ")
    assert condition(made, "Available")[0] == "True"
    made.misses = lambda pod: False
    made.run(1)
    assert made.status.reassessment.blind_since is None
    assert condition(made, "SLOMet") == ("True", "WithinTarget")


def test_one_pod_that_tells_is_enough() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(replicas=2)
    made.run(10)
    made.serve(40, "prose")
    first = next(iter(made.revisions.values())).pods[0]
    made.misses = lambda pod: pod is first
    made.run(10)
    assert made.status.reassessment.blind_since is None


def test_a_first_pod_that_was_never_heard_is_no_blindness() -> None:
    made = world(inline(), general=GENERAL)
    made.misses = lambda pod: True
    made.run(20)
    assert made.status.reassessment.blind_since is None
