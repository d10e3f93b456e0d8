"""Estimators: how good an exit is, in percent, and how sure that is.

Called by `evidence`. Quality percent = 100 x reference bits / candidate's bits on the same human text,
estimated as a ratio of sums over paired texts, so that what makes a text hard for every model cancels. It
must not know candidates, rows or pods: numbers in, an Estimate out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, isfinite, log, pi, sqrt, tan
from statistics import NormalDist, fmean, stdev, variance

from helios_contract.limits import Baseline

from helios_operator.decide.policy import DEFAULT, Policy


@dataclass(frozen=True)
class Estimate:
    """A share, and how sure it is."""

    mean: float
    """Percent."""
    low: float
    """Percent: the one-sided bound at the policy's confidence."""
    high: float
    """The same from above."""
    samples: int
    """Texts behind it."""

    @property
    def relative_error(self) -> float:
        """Half the width, as a share of the mean."""
        return (self.high - self.low) / 2 / self.mean if self.mean else inf

    def times(self, other: Estimate) -> Estimate:
        """The product of two independent percentages."""
        mean = self.mean * other.mean / 100
        error = mean * sqrt(self.relative_error**2 + other.relative_error**2)
        return Estimate(mean, max(0.0, mean - error), mean + error, min(self.samples, other.samples))


def whole(percent: float) -> int:
    """As it is told everywhere: never more than it is, but for the last bit of a sum."""
    return floor(round(percent, 9))


def tenth(percent: float) -> float:
    """The same of a bound, which stands beside a whole target."""
    return floor(10 * round(percent, 9)) / 10 if isfinite(percent) else percent


def exactly(percent: float, samples: int) -> Estimate:
    return Estimate(percent, percent, percent, samples)


def ratio(numerators: Sequence[float], denominators: Sequence[float], policy: Policy = DEFAULT) -> Estimate:
    """100 x sum / sum over paired texts, with the ratio estimator's standard error."""
    samples, below = len(denominators), sum(denominators)
    if not samples or below <= 0:
        return Estimate(0.0, 0.0, inf, 0)
    mean = sum(numerators) / below
    if samples < 2:
        return Estimate(100 * mean, 0.0, inf, samples)
    squares = sum((n - mean * d) ** 2 for n, d in zip(numerators, denominators, strict=True))
    error = sqrt(squares * samples / (samples - 1)) / below * student(policy.confidence, samples - 1)
    return Estimate(100 * mean, 100 * max(0.0, mean - error), 100 * (mean + error), samples)


def ratio_of_totals(
    numerator: float, denominator: float, samples: int, deviation: float, policy: Policy = DEFAULT
) -> Estimate:
    """The same without per-text figures: `deviation` is the relative one between texts, from elsewhere."""
    if not samples or denominator <= 0:
        return Estimate(0.0, 0.0, inf, 0)
    mean = 100 * numerator / denominator
    error = mean * deviation * student(policy.confidence, max(1, samples - 1)) / sqrt(samples)
    return Estimate(mean, max(0.0, mean - error), mean + error, samples)


def share(hits: float, tokens: float, policy: Policy = DEFAULT) -> Estimate:
    """A share of tokens in percent, with Wilson's bounds. Tokens of a text are not independent: the caller
    passes an effective count when it knows one."""
    if tokens <= 0:
        return Estimate(0.0, 0.0, 100.0, 0)
    z, p = NormalDist().inv_cdf(policy.confidence), hits / tokens
    centre = (p + z * z / (2 * tokens)) / (1 + z * z / tokens)
    half = z / (1 + z * z / tokens) * sqrt(p * (1 - p) / tokens + z * z / (4 * tokens * tokens))
    return Estimate(
        100 * p, 100 * max(0.0, min(p, centre - half)), 100 * min(1.0, max(p, centre + half)), round(tokens)
    )


def baseline(
    numerators: Sequence[float], denominators: Sequence[float], policy: Policy = DEFAULT
) -> Baseline | None:
    """Mean and between-text deviation of the ratio of each text: what a pod's detector expects. None: too
    few."""
    ratios = [n / d for n, d in zip(numerators, denominators, strict=True) if d > 0]
    if len(ratios) < policy.min_baseline_texts:
        return None
    return Baseline(fmean(ratios), stdev(ratios))


def are_other_texts(some: Sequence[float], others: Sequence[float], policy: Policy = DEFAULT) -> bool:
    """Do two samples of bits per byte come from different kinds of text? Welch's test on logarithms, far
    enough out (four standard errors) that a deployment asks it for years without a false yes."""
    logs = [[log(value) for value in sample if value > 0] for sample in (some, others)]
    if min(len(sample) for sample in logs) < policy.min_compared_texts:
        return False
    error = sqrt(sum(variance(sample) / len(sample) for sample in logs))
    apart = abs(fmean(logs[0]) - fmean(logs[1]))
    return apart > policy.other_texts_errors * error + policy.other_texts_margin


def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t by the Cornish-Fisher expansion; exact enough (2 %) from three degrees of
    freedom up, and for one and two by their closed forms."""
    if freedom == 1:
        return tan(pi * (probability - 0.5))
    if freedom == 2:
        alpha = 2 * probability - 1
        return alpha * sqrt(2 / (1 - alpha * alpha))
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
