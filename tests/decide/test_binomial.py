"""Clopper-Pearson's bounds: known values, and what makes them bounds."""

from __future__ import annotations

from fractions import Fraction
from math import comb, isclose

import pytest
from helios_operator.decide.facts.binomial import lower, tail, upper
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sizes import examples

COUNTS = st.integers(1, 90).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
CONFIDENCE = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # quantiles of the beta distribution, by mpmath's incomplete beta function with 30 digits
        (20, 20, 0.860891659332, 1.0),
        (0, 20, 0.0, 0.139108340668),
        (19, 20, 0.783893835793, 0.997438621223),
        (10, 20, 0.301953911286, 0.698046088714),
        (1, 20, 0.00256137877653, 0.216106164207),
        (150, 256, 0.53279502592, 0.637582654112),
        (255, 256, 0.981604230114, 0.99979965564),
    ],
)
def test_known_bounds(hits: int, trials: int, low: float, high: float) -> None:
    assert isclose(lower(hits, trials, 0.95), low, rel_tol=1e-11)
    assert isclose(upper(hits, trials, 0.95), high, rel_tol=1e-11)


def test_all_passed_is_a_root() -> None:
    """P(n of n) = p^n."""
    for trials in (1, 7, 20, 100, 256):
        assert isclose(lower(trials, trials, 0.95), 0.05 ** (1 / trials), rel_tol=1e-12)


@settings(max_examples=examples(40))
@given(COUNTS, CONFIDENCE)
def test_the_bound_is_where_the_tail_is_as_rare_as_asked(counts: tuple[int, int], confidence: float) -> None:
    hits, trials = counts
    low, high = lower(hits, trials, confidence), upper(hits, trials, confidence)
    assert 0 <= low <= hits / trials <= high <= 1
    if hits:
        assert isclose(exact_tail(hits, trials, low), 1 - confidence, rel_tol=1e-9)
    if hits < trials:
        assert isclose(1 - exact_tail(hits + 1, trials, high), 1 - confidence, rel_tol=1e-9)


@settings(max_examples=examples(40))
@given(COUNTS, CONFIDENCE)
def test_one_more_pass_is_better_and_the_sides_mirror_each_other(
    counts: tuple[int, int], confidence: float
) -> None:
    hits, trials = counts
    if hits < trials:
        assert lower(hits, trials, confidence) < lower(hits + 1, trials, confidence)
    assert isclose(
        upper(hits, trials, confidence), 1 - lower(trials - hits, trials, confidence), abs_tol=1e-12
    )
    assert lower(hits, trials, 0.99) <= lower(hits, trials, 0.8)


@settings(max_examples=examples(40))
@given(st.integers(1, 60), st.fractions(0, 1), CONFIDENCE)
def test_it_covers(trials: int, share: Fraction, confidence: float) -> None:
    """Whatever the true share is, the bound is above it no more often than allowed: over all outcomes."""
    wrong = sum(
        comb(trials, hits) * float(share) ** hits * float(1 - share) ** (trials - hits)
        for hits in range(trials + 1)
        if lower(hits, trials, confidence) > share
    )
    assert wrong <= 1 - confidence + 1e-9


@pytest.mark.parametrize("counts", [(1, 0), (2, 1), (-1, 5)])
def test_what_cannot_be_counted_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at confidence"):
        lower(*counts, 0.95)
    with pytest.raises(ValueError, match="at confidence"):
        upper(*counts, 0.95)


def exact_tail(hits: int, trials: int, share: float) -> float:
    p = Fraction(share)
    found = float(sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(hits, trials + 1)))
    assert isclose(found, tail(hits, trials, share), rel_tol=1e-9, abs_tol=1e-300)
    return found
