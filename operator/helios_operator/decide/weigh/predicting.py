"""What the timing law leaves to be said of an option: at today's pace, at the percentile, in joules.

Called by `options` for each batch. Numbers of one timing come in; it must not know candidates, or what is
asked for.
"""

from __future__ import annotations

from math import ceil

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
    energy: EnergyCost | None, fit: StepTimeFit, layer: int, head_kind: str, rows: float, error: float
) -> float | None:
    """Of the nearest measured number of rows. Between measured depths linear in the layers; where one depth
    was measured, in proportion to the time of a step."""
    if energy is None or not energy.joules_per_megatoken:
        return None
    points = energy.joules_per_megatoken
    nearest = min({r for _, r in points}, key=lambda r: (abs(r - rows), r))
    by_depth = sorted((k, joules) for (k, r), joules in points.items() if r == nearest)
    if len(by_depth) == 1:
        [(depth, measured)] = by_depth
        return (
            measured * _lasts(fit, layer, head_kind, nearest) / _lasts(fit, depth, OWN_HEAD, nearest) * error
        )
    below = max((p for p in by_depth if p[0] <= layer), default=by_depth[0])
    above = min((p for p in by_depth if p[0] >= layer), default=by_depth[-1])
    if above[0] == below[0]:
        return below[1] * max(1.0, layer / by_depth[-1][0]) * error
    share = (layer - below[0]) / (above[0] - below[0])
    return (below[1] + share * (above[1] - below[1])) * error


def _lasts(fit: StepTimeFit, layers: int, head_kind: str, rows: int) -> float:
    """Nanoseconds of a decoding step, without its context: energy is measured with a short one."""
    ns = step_ns(fit, layers=layers, rows=rows, kv_tokens=0, sampled=rows, head_kind=head_kind)
    return max(1.0, ns)
