"""Whole stories in the simulated world: traffic in, the decisions that follow."""

from __future__ import annotations

from tests.decide.builders import selected, world
from tests.decide.truth import BARE_BIG, BARE_SMALL, CODE, GENERAL, PROSE


def test_starts_with_the_reference_at_full_depth():
    made = world(general=GENERAL)
    made.run(10)
    assert made.active == ("general", 30)
    assert made.status.reassessment.last_time is None


def test_prose_selects_24_and_stays():
    made = selected(world(general=GENERAL))
    assert made.active == ("general", 24)
    made.serve(400, "prose")
    assert made.kinds == ["Select"]
    assert made.active == ("general", 24)


def test_code_after_prose_grows_to_27():
    made = selected(world(general=GENERAL))
    made.serve(120, "code")
    assert made.kinds == ["Select", "Grow"]
    assert made.active == ("general", 27)
    assert made.lost == 0
