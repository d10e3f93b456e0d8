"""What is told of a latency: no more than its buckets hold, and of two latencies nothing that cannot be."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace

import pytest
from helios_contract.telemetry import Histogram
from helios_operator.decide.facts import percentiles
from helios_server.engine import stats
from hypothesis import given
from hypothesis import strategies as st

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.truth import GENERAL

TTFT, E2E = stats._TTFT_MS, stats._E2E_MS


def of(bounds: tuple[float, ...], values: list[float]) -> Histogram:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return Histogram(bounds, tuple(counts))


def test_a_percentile_is_told_as_its_bucket() -> None:
    histogram = Histogram((10.0, 20.0, 40.0), (50, 40, 10, 0))
    told = {percent: str(percentiles.of([histogram], percent)) for percent in (50, 90, 95)}
    assert told == {50: "up to 10", 90: "10 to 20", 95: "20 to 40"}
    assert str(percentiles.of([Histogram((10.0,), (0, 5))], 95)) == "above 10"
    assert percentiles.of([Histogram((10.0,), (0, 0))], 95) is None
    assert percentiles.of([], 95) is None


def test_what_is_compared_is_linear_within_the_bucket() -> None:
    histogram = Histogram((10.0, 20.0, 40.0), (50, 40, 10, 0))
    for many in ([histogram], [histogram, histogram]):
        found = percentiles.of(many, 95)
        assert found
        assert found.value == pytest.approx(30)
        assert (found.is_above(20), found.is_above(25)) == ("above", "likely above")


times = st.lists(st.tuples(st.floats(0.1, 9e6), st.floats(0, 9e6)), min_size=1, max_size=30)


@given(times, st.integers(50, 99))
def test_a_first_token_never_comes_after_the_last(requests: list[tuple[float, float]], percent: int) -> None:
    """Each histogram has buckets of its own, and one request may lie in the first alone."""
    ttft = of(TTFT, [first for first, _ in requests])
    for ended in (requests, requests[: len(requests) // 2 + 1]):
        e2e = of(E2E, [first + rest for first, rest in ended])
        first, whole = percentiles.in_order(percentiles.of([ttft], percent), percentiles.of([e2e], percent))
        assert first
        assert whole
        assert first.low <= whole.low
        assert whole.high is None or (first.high is not None and first.high <= whole.high)
        assert first.value <= whole.value
        for each in (first, whole):
            assert each.low <= each.value
            assert each.high is None or each.value <= each.high
            told = {each.low, each.high or 0.0}
            assert told <= {0.0, *TTFT, *E2E}


def test_the_condition_tells_buckets() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(slo=replace(made.spec.slo, itl_ms=1))
    made.serve(40, "prose")
    told = next(c for c in made.status.conditions if c.type == "SLOMet")
    assert condition(made, "SLOMet") == ("False", "LatencyMissed")
    assert re.search(r"itl (up to )?[\d.]+( to [\d.]+)? ms", told.message)
    assert re.search(r"itl (likely )?above 1 ms", told.message)
