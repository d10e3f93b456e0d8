"""How many rows are foretold, and what is said of more than were timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from helios_operator.decide import weigh
from helios_operator.decide.weigh.options import Option

from tests.decide.builders import inline, world
from tests.decide.truth import BARE_BIG, BIG, Backbone, Model, memory_for


def options(backbone: Backbone, rows: int, most: int | None = None) -> Mapping[int, Option]:
    """By depth, of a model without heads in memory for so many rows, once everything is measured."""
    made = world(inline(), 90, big=Model(backbone))
    made.edit(limits=replace(made.spec.limits, memory_mib=memory_for(BIG, rows), max_batch_size=most))
    made.run(30)
    return {option.layer_budget: option for option in weigh(made.snapshot(), made.now)[1]}


@pytest.mark.parametrize(("asked", "rows"), [(None, 128), (200, 128), (50, 50)])
def test_no_more_rows_are_foretold_than_a_step_takes(asked: int | None, rows: int) -> None:
    assert options(BARE_BIG.backbone, 300, asked)[30].max_batch_size == rows


def test_more_rows_than_were_timed_are_named_and_promise_no_more_throughput() -> None:
    line = options(BIG, 40)[30]
    timed, beyond = (options(replace(BIG, timed_rows=rows), 40)[30] for rows in (128, 10))
    assert timed.max_batch_size == beyond.max_batch_size == line.max_batch_size == 41
    assert "timed up to" not in timed.verdict.message
    assert "41 rows (timed up to 10)" in beyond.verdict.message
    assert beyond.verdict.numbers["timedRows"] == 10
    assert timed.performance
    assert beyond.performance
    assert line.performance
    assert timed.performance == line.performance
    assert beyond.performance.expected == timed.performance.expected
    assert beyond.performance.tokens_per_second < timed.performance.tokens_per_second
    ten = options(replace(BIG, timed_rows=10), 40, most=10)[30].performance
    assert ten
    assert beyond.performance.tokens_per_second == pytest.approx(ten.tokens_per_second)
