"""Counts that are kept as they change: what is told is what counting all anew would tell."""

from __future__ import annotations

import pytest
from helios_server.engine.cusum import BREACH_LIMIT, BREACH_WINDOW, BreachWindow
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.engine.stats import Recorder, Stats
from hypothesis import given
from hypothesis import strategies as st


def row(count: int, start: int, depth: int, samples: bool) -> Row:
    sequence = Sequence("r", (1,) * 40, SamplingParams(), 9, ordinal=1)
    sequence.depth = depth
    return Row(sequence, start, count, samples)


rows = st.builds(row, st.integers(1, 40), st.integers(0, 900), st.just(4) | st.integers(2, 4), st.booleans())
Step = tuple[list[Row], float]
steps = st.tuples(st.lists(rows, min_size=1, max_size=20), st.floats(1e-3, 4.0))


@given(taken=st.lists(steps, max_size=30))
def test_steps_are_told_as_if_counted_anew(taken: list[Step]) -> None:
    stats = Stats()
    for place, (planned, seconds) in enumerate(taken):
        stats.step(StepPlan(tuple(planned)), len(planned), seconds)
        assert stats.window.steps() == counted(taken[: place + 1]).window.steps()
    alike = [step for step in taken if len({row.sequence.depth for row in step[0]}) == 1]
    timings = stats.window.steps()
    assert sum(timing.count for timing in timings) == len(alike)
    spent = sum(timing.count * timing.mean_us for timing in timings)
    assert spent == pytest.approx(1e6 * sum(seconds for _, seconds in alike))
    assert stats.tokens_per_second == pytest.approx(_rate([(seconds, len(rows)) for rows, seconds in taken]))


def counted(taken: list[Step]) -> Stats:
    """Of steps that nobody asked about meanwhile."""
    stats = Stats()
    for planned, seconds in taken:
        stats.step(StepPlan(tuple(planned)), len(planned), seconds)
    return stats


def _rate(steps: list[tuple[float, int]]) -> float:
    """Tokens per second of the last steps, as many as more than 10 seconds hold, less what is beyond."""
    while steps and sum(seconds for seconds, _ in steps) - steps[0][0] > 10:
        steps = steps[1:]
    return sum(tokens for _, tokens in steps) / sum(seconds for seconds, _ in steps) if steps else 0.0


@given(values=st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_that_was_told_stays_and_the_next_one_has_what_came_since(values: list[float]) -> None:
    recorder = Recorder((5.0, 50.0))
    told = [recorder.snapshot()]
    for value in values:
        recorder.add(value)
        told.append(recorder.snapshot())
        assert recorder.snapshot() == told[-1]
    for length, histogram in enumerate(told):
        so_far = values[:length]
        few, some = sum(value <= 5 for value in so_far), sum(5 < value <= 50 for value in so_far)
        assert histogram.counts == (few, some, length - few - some)
        assert histogram.sum == pytest.approx(sum(so_far))


@given(tokens=st.lists(st.booleans(), max_size=400), mostly=st.booleans())
def test_breaches_in_the_window_are_those_of_the_last_tokens(tokens: list[bool], mostly: bool) -> None:
    window, recent = BreachWindow(), list[bool]()
    for place, token in enumerate(tokens):
        breach = token or (mostly and place % 3 > 0)
        called = window.observe(breach, place)
        recent = [*recent, breach][-BREACH_WINDOW:]
        full = len(recent) == BREACH_WINDOW and sum(recent) > BREACH_LIMIT and breach
        assert bool(called) == full
        if called:
            assert called.statistic == sum(recent)
            recent = []
        assert window.in_window == sum(recent)
