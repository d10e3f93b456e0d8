"""What the demo says of depth and precision: every full depth, and why fewer layers serve or do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from helios_contract.results import StepTimeFit
from helios_contract.serves import REFERENCE, Precision
from helios_operator.decide import weigh

from examples.demo.options import told
from tests.decide.builders import inline, selected, world
from tests.decide.test_precisions import holding
from tests.decide.truth import BIG, GENERAL, Backbone, Model
from tests.decide.world import START


def lines(min_quality: int, model: Model = GENERAL) -> tuple[Precision, int, list[str]]:
    """The precision and the depth that serve prose under a promise, and what is said of them."""
    made = selected(holding(world(inline(), min_quality, chat=model)))
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


@dataclass(frozen=True)
class SlowInt8(Backbone):
    """On a processor that has nothing to multiply int8 with."""

    def fit(self, precision: Precision = REFERENCE) -> StepTimeFit:
        found, times = super().fit(), 1 if precision == REFERENCE else 60
        per_layer, per_row = times * found.per_layer_ns, times * found.per_layer_row_ns
        return replace(found, per_layer_ns=per_layer, per_layer_row_ns=per_row)


@pytest.mark.parametrize(("min_quality", "depth"), [(97, 30), (90, 24)])
def test_where_int8_is_slower_what_is_as_published_serves_and_the_words_say_so(
    min_quality: int, depth: int
) -> None:
    """What the demo prints follows what was measured, whichever precision that favours."""
    slow = replace(GENERAL, backbone=SlowInt8(**vars(BIG)))
    precision, layers, said = lines(min_quality, slow)
    assert (precision, layers) == (REFERENCE, depth)
    serving = [line.split(":")[0] for line in said if line.endswith("; it serves")]
    assert serving == (["full depth, auto/auto"] if depth == 30 else [])
    assert any(line.startswith("full depth, int8/auto: chat at 30 layers in int8/auto") for line in said)
    assert all("auto/auto" in line.split(":")[0] for line in said if not line.startswith("full depth"))


def test_which_full_depth_serves_is_said() -> None:
    precision, layers, said = lines(97)
    assert layers == 30
    assert [line.split(":")[0] for line in said if line.endswith("; it serves")] == [
        f"full depth, {precision}"
    ]


def test_what_is_better_by_now_is_not_said_to_be_no_better() -> None:
    """A change waits for its wins, and the newest figures are shown."""
    made = selected(holding(world(inline(), 90, chat=GENERAL)))
    active = made.snapshot().deployment.status.active
    assert active
    _, options = weigh(made.snapshot(), START + timedelta(hours=1))
    said = list(told(options, replace(active, layer_budget=27)))
    (line,) = [line for line in said if line.startswith("24 layers")]
    assert "are better by now but do not serve yet" in line
    (line,) = [line for line in said if line.startswith("27 layers")]
    assert ": serve. " in line
    behind = list(told(options, active))
    assert any("27 layers" in line and "no better than chat at 24" in line for line in behind)
