"""What the timing law leaves to be said of an option: at today's pace, at the percentile, in joules.

Called by `options` for each batch. Numbers of one timing come in; it must not know candidates, or what is
asked for.
"""

from __future__ import annotations

from math import ceil
from statistics import fmean

from helios_contract.results import EnergyCost, StepTimeFit
from helios_server.planning.timing import OWN_HEAD, Prediction, Workload, step_ns


def scaled(mean: Prediction, pace: float) -> Prediction:
    return Prediction(
        rows=mean.rows,
        tokens_per_second=mean.tokens_per_second / pace,
        itl_ms=mean.itl_ms * pace,
        ttft_ms=mean.ttft_ms * pace,
        e2e_ms=mean.e2e_ms * pace,
    )


def slow_step(
    fit: StepTimeFit,
    layers: int,
    head_kind: str,
    rows: float,
    workload: Workload,
    step_tokens: int,
    percentile: int,
) -> float:
    """Nanoseconds of the step at the percentile: one that carries a whole prefill chunk, when at least that
    many steps do, else the mean step (0)."""
    chunks = ceil(workload.isl / step_tokens)
    if rows * chunks / workload.osl < 1 - percentile / 100:
        return 0.0
    return step_ns(
        fit,
        layers=layers,
        rows=max(rows, min(step_tokens, rows + workload.isl)),
        kv_tokens=rows * (workload.isl + workload.osl / 2),
        sampled=rows,
        head_kind=head_kind,
    )


def joules(
    energy: EnergyCost | None, fit: StepTimeFit, rows: float, tokens_per_second: float
) -> float | None:
    """Of a million tokens: the power of steps with the nearest measured number of rows, for as long as the
    tokens take with their prompts and contexts. What is measured has neither."""
    if energy is None or not energy.joules_per_megatoken:
        return None
    points = energy.joules_per_megatoken
    nearest = min({r for _, r in points}, key=lambda r: (abs(r - rows), r))
    watts = fmean(_watts(fit, depth, r, measured) for (depth, r), measured in points.items() if r == nearest)
    return watts * 1e6 / tokens_per_second


def _watts(fit: StepTimeFit, layers: int, rows: int, joules_per_megatoken: float) -> float:
    """While such steps run, in the law's time: energy is measured with a short context."""
    ns = step_ns(fit, layers=layers, rows=rows, kv_tokens=0, sampled=rows, head_kind=OWN_HEAD)
    return joules_per_megatoken * rows / max(1.0, ns) * 1e3
