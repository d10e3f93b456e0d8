"""What the demo says of depth and precision: every full depth, and why fewer layers serve or do not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helios_contract.serves import Precision
from helios_operator.decide import weigh

from examples.demo.options import told
from tests.decide.builders import inline, selected, world
from tests.decide.test_precisions import holding
from tests.decide.truth import GENERAL
from tests.decide.world import START


def lines(min_quality: int) -> tuple[Precision, int, list[str]]:
    """The precision and the depth that serve prose under a promise, and what is said of them."""
    made = selected(holding(world(inline(), min_quality, chat=GENERAL)))
    snapshot = made.snapshot()
    active = snapshot.deployment.status.active
    assert active
    _, options = weigh(snapshot, START + timedelta(hours=1))
    return active.precision, active.layer_budget, list(told(options, active))


def test_a_promise_that_fewer_layers_keep_names_what_they_add() -> None:
    precision, layers, said = lines(90)
    assert layers == 24
    assert precision != Precision()
    full = [line for line in said if line.startswith("full depth, ")]
    assert full[0].startswith("full depth, auto/auto: chat at 30 layers: quality 100 %")
    assert len(full) == 4  # int8 is weighed where nothing is said
    assert any(line.startswith(f"24 layers, {precision}: serve. chat at 24 layers") for line in said)


def test_a_promise_that_fewer_layers_do_not_keep_says_why() -> None:
    precision, layers, said = lines(97)
    assert layers == 30
    assert precision != Precision()
    below = [line for line in said if not line.startswith("full depth, ")]
    assert below
    assert all(f"{precision}: do not serve: quality" in line and "< 97" in line for line in below)


@pytest.mark.parametrize("min_quality", [90, 97])
def test_what_serves_is_said_once(min_quality: int) -> None:
    _, layers, said = lines(min_quality)
    assert sum(": serve. " in line for line in said) == (layers < 30)
