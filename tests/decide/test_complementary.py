"""Two backbones of one speed, each better on its own traffic: what objective quality makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.api.types import Objective, Prompts

from tests.decide.builders import LIVE, inline, selected, world
from tests.decide.truth import Backbone, Model
from tests.decide.world import World

NOVELIST = Model(Backbone("novelist", 30, worth={"code": 0.93}))
CODER = Model(Backbone("coder", 30, worth={"prose": 0.94}))
"""The one is worth 93 % of the other on code, the other 94 % of it on prose."""


def pair(min_quality: int, prompts: Prompts = LIVE) -> World:
    made = world(prompts, min_quality, novelist=NOVELIST, coder=CODER)
    made.edit(slo=replace(made.spec.slo, optimization_type=Objective.QUALITY))
    made.edit(reassessment=replace(made.spec.reassessment, min_improvement_percent=5))
    made.memory_mib = 4 * (made.spec.limits.memory_mib or 0)
    return made


@pytest.mark.parametrize(("domain", "better"), [("prose", "novelist"), ("code", "coder")])
def test_the_first_choice_is_whoever_predicts_the_traffic_better(domain: str, better: str) -> None:
    assert selected(pair(80), domain).active == (better, 30)


def test_each_kind_of_traffic_ends_at_the_one_that_is_better_on_it() -> None:
    made = selected(pair(98))
    served = [made.active]
    for domain in ("code", "prose"):
        made.serve(300, domain)
        served.append(made.active)
    assert served == [("novelist", 30), ("coder", 30), ("novelist", 30)]
    assert made.kinds == ["Select", "Switch", "Switch"]
    assert [entry.reason for entry in made.status.history[1:]] == ["QualityRestored"] * 2
    assert "novelist at 30 has quality 93 %" in made.status.history[1].message


def test_within_the_promise_the_better_one_is_an_optimisation() -> None:
    made = selected(pair(80))
    made.serve(60, "code")
    assert (made.status.reassessment.reason, made.status.reassessment.consecutive_wins) == (
        "WaitingForWins",
        1,
    )
    made.serve(200, "code")
    assert made.active == ("coder", 30)
    assert made.status.history[-1].reason == "AboveMinImprovement"


def test_without_live_prompts_the_loop_stays_and_says_why() -> None:
    made = selected(pair(98, inline()))
    made.serve(300, "code")
    assert made.active == ("novelist", 30)
    assert made.kinds == ["Select"]
