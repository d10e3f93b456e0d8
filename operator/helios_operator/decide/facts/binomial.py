"""Of so many tasks an option passed so many: which share does it pass, at least, and at most?

Called by `task_passes`. Clopper-Pearson's bounds, one-sided: the share at which what was seen, or more of it,
would be as rare as the confidence allows. By bisection over the exact binomial tail, so that neither a
normal approximation nor a library for one quantile is needed. It must not know what a task is.
"""

from __future__ import annotations

from functools import cache
from math import comb, fsum, nextafter

_HALVINGS = 60
"""Beyond what a double tells apart in [0, 1]."""


@cache
def lower(hits: int, trials: int, confidence: float) -> float:
    """The least share in [0, 1] that is compatible with so many hits."""
    _check(hits, trials, confidence)
    return 0.0 if hits == 0 else _solved(hits, trials, 1 - confidence)


@cache
def upper(hits: int, trials: int, confidence: float) -> float:
    """The largest share in [0, 1] that is compatible with so many hits."""
    _check(hits, trials, confidence)
    return 1.0 if hits == trials else 1 - _solved(trials - hits, trials, 1 - confidence)


def tail(hits: int, trials: int, share: float) -> float:
    """Probability of at least so many hits."""
    return fsum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))


def _solved(hits: int, trials: int, rare: float) -> float:
    """The share at which at least so many hits have the probability `rare`, rounded down. The tail grows
    with it."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if tail(hits, trials, middle) > rare:
            high = middle
        else:
            low = middle
        if nextafter(low, high) >= high:
            break
    return low


def _check(hits: int, trials: int, confidence: float) -> None:
    if not (0 <= hits <= trials and trials > 0 and 0 < confidence < 1):
        raise ValueError(f"{hits} of {trials} at confidence {confidence}")
