"""Calibration and Clopper-Pearson bounds: properties, and known values."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from helios_server.exits.confidence import Calibration, incomplete_beta, isotonic, upper_bound
from hypothesis import given
from hypothesis import strategies as st

rates = st.floats(0, 1)
samples = st.lists(st.tuples(rates, st.booleans()), min_size=1, max_size=300)


def chance_of_at_most(events: int, trials: int, rate: float) -> float:
    return sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(events + 1))


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.floats(0.8, 0.99)
)
def test_upper_bound_leaves_exactly_the_chance_it_says(case: tuple[int, int], level: float) -> None:
    events, trials = case
    bound = upper_bound(events, trials, level)
    assert bound > events / trials
    assert chance_of_at_most(events, trials, bound) == pytest.approx(1 - level, abs=1e-9)


def test_upper_bound_of_known_cases() -> None:
    assert upper_bound(0, 29) == pytest.approx(1 - 0.05 ** (1 / 29))
    assert upper_bound(5, 5) == 1.0
    assert upper_bound(2_000, 100_000) == pytest.approx(0.0207, abs=2e-4)


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.001, 0.999))
def test_incomplete_beta_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    trials = a + b - 1
    tail = sum(math.comb(trials, k) * x**k * (1 - x) ** (trials - k) for k in range(a, trials + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, abs=1e-10)


@given(st.lists(st.tuples(rates, st.integers(1, 100)), min_size=1, max_size=40))
def test_isotonic_never_falls_and_keeps_the_mean(points: list[tuple[float, int]]) -> None:
    values, weights = zip(*points, strict=True)
    fitted = isotonic(values, weights)
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(fitted))
    before = sum(value * weight for value, weight in points)
    assert sum(value * weight for value, weight in zip(fitted, weights, strict=True)) == pytest.approx(before)


@given(st.lists(rates, min_size=1, max_size=40))
def test_isotonic_leaves_what_rises_already(values: list[float]) -> None:
    rising = sorted(values)
    assert isotonic(rising, [1] * len(rising)) == pytest.approx(rising)


@given(samples, rates, rates)
def test_probability_never_falls_with_confidence(
    points: list[tuple[float, bool]], first: float, second: float
) -> None:
    calibration = Calibration.fit(*zip(*points, strict=True))
    low, high = sorted((first, second))
    assert 0 <= calibration.probability(low) <= calibration.probability(high) <= 1


@given(samples)
def test_every_sample_is_counted_once_in_rising_bins(points: list[tuple[float, bool]]) -> None:
    calibration = Calibration.fit(*zip(*points, strict=True))
    assert sum(calibration.tokens) == len(points)
    assert sum(calibration.agreed) == sum(same for _, same in points)
    assert list(calibration.lowest) == sorted(set(calibration.lowest))
    assert len(calibration.tokens) <= 20


@given(samples, st.floats(0.01, 0.9))
def test_a_threshold_keeps_its_promise_on_the_samples(
    points: list[tuple[float, bool]], target: float
) -> None:
    threshold = Calibration.fit(*zip(*points, strict=True)).threshold(target)
    if threshold is None:
        return
    kept = [same for confidence, same in points if confidence >= threshold]
    assert upper_bound(kept.count(False), len(kept)) < target


@given(samples, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_a_stricter_target_never_lowers_the_threshold(
    points: list[tuple[float, bool]], first: float, second: float
) -> None:
    calibration = Calibration.fit(*zip(*points, strict=True))
    strict, loose = (calibration.threshold(target) for target in sorted((first, second)))
    assert strict is None or (loose is not None and loose <= strict)


def test_a_threshold_separates_what_can_be_trusted() -> None:
    dice = random.Random(0)
    confidence = [dice.random() for _ in range(20_000)]
    agrees = [dice.random() < value for value in confidence]  # perfectly calibrated
    calibration = Calibration.fit(confidence, agrees)
    assert calibration.probability(0.3) == pytest.approx(0.3, abs=0.05)
    threshold = calibration.threshold(0.10)
    assert threshold is not None
    assert threshold == pytest.approx(0.8, abs=0.06)  # above t the mean disagreement is (1 - t) / 2
    assert calibration.threshold(0.001) is None


def test_it_survives_json() -> None:
    calibration = Calibration.fit([0.25, 0.5, 0.75], [False, True, True], bins=3)
    assert Calibration.from_json(calibration.to_json()) == calibration
