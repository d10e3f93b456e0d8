"""A choice has one quality, whoever tells it: the profile's, in whole percent, rounded down."""

from __future__ import annotations

import re

from helios_operator.cluster.metrics import Metrics
from helios_operator.decide import weigh

from tests.decide.builders import inline, selected, world
from tests.decide.test_by_hand import ask_to_switch
from tests.decide.truth import CODE, GENERAL, PROSE
from tests.decide.world import World


def told(made: World) -> set[int]:
    """By the status, the decision, the plan and the metrics, of what serves."""
    active, snapshot, metrics = made.status.active, made.snapshot(), Metrics()
    (option,) = (
        option
        for option in weigh(snapshot, made.now)[1]
        if (option.contender.name, option.layer_budget) == (active.candidate, active.layer_budget)
    )
    metrics.passed(made.look(0), snapshot)
    page = metrics.page().decode()
    (profiled,) = re.findall(r"\nhelios_operator_profiled_quality_ratio\{.*\} ([\d.]+)", page)
    (said,) = re.findall(r"quality (\d+) %", made.status.history[-1].message.split(";")[0])
    planned = int(option.verdict.numbers["qualityPercent"])
    return {active.quality_percent, int(said), planned, round(100 * float(profiled))}


def test_a_choice_has_one_quality() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.serve(60, "prose")
    assert told(made) == {made.status.candidates[0].quality_percent}


def test_what_serves_by_hand_has_its_own_quality_and_not_that_of_the_best() -> None:
    made = selected(world(inline(), 85, prose=PROSE, code=CODE))
    other = next(name for name in ("prose", "code") if name != made.active[0])
    ask_to_switch(made, other)
    made.run(5)
    assert made.active[0] == other
    assert len(told(made)) == 1
