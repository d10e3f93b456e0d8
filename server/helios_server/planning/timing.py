"""The timing law: how long a step lasts, and what that makes of a workload.

    t_step = step + k * (per_layer + per_layer_row * rows + per_layer_kv_token * kv_tokens)
           + head_kind(sampled)

`rows` are the new tokens in the step, prefill included; `sampled` are the rows that go through the LM
head, which costs nothing in a step without any. Called by the profile (to fit), by the decisions (to
predict, and to refine a fit with what serving measured). It must not read clocks: durations come in as
arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helios_contract.results import HeadCost, StepTimeFit


@dataclass(frozen=True)
class StepPoint:
    """One measured shape of a step. `weight` is how many steps stand behind `step_ns`, their median or
    mean.
    """

    layers: int
    rows: float
    kv_tokens: float
    sampled: float
    head_kind: str
    step_ns: float
    weight: float = 1.0


@dataclass(frozen=True)
class Workload:
    """What callers send. Lengths in tokens; at most one of concurrency and requests per second, none:
    saturating.
    """

    isl: int
    osl: int
    concurrency: int | None = None
    request_rate: float | None = None


@dataclass(frozen=True)
class Prediction:
    """Of a workload in steady state. Latencies in milliseconds, means unless the caller widens them."""

    rows: float
    tokens_per_second: float
    itl_ms: float
    ttft_ms: float
    e2e_ms: float


def step_ns(
    fit: StepTimeFit, *, layers: int, rows: float, kv_tokens: float, sampled: float, head_kind: str
) -> float:
    """Nanoseconds that a step lasts. `kv_tokens`: context summed over the rows. KeyError: unknown kind."""
    head = fit.heads[head_kind]
    head_ns = head.base_ns + head.per_row_ns * sampled if sampled else 0
    per_layer = fit.per_layer_ns + fit.per_layer_row_ns * rows + fit.per_layer_kv_token_ns * kv_tokens
    return fit.step_ns + layers * per_layer + head_ns


def predict(
    fit: StepTimeFit, *, layers: int, head_kind: str, batch: int, workload: Workload, step_tokens: int
) -> Prediction:
    """Steady state with at most `batch` rows: every step decodes each row once and prefills what newcomers
    need.

    A request lives osl steps after its prefill, so a step carries rows * isl / osl tokens of prefill on
    average. The rows are the batch, or fewer when the workload does not fill it.
    """
    rows: float = min(batch, workload.concurrency) if workload.concurrency else batch

    def mean_step_ns(live: float) -> float:
        prefill = live * workload.isl / workload.osl
        kv_tokens = live * (workload.isl + workload.osl / 2)
        return step_ns(
            fit, layers=layers, rows=live + prefill, kv_tokens=kv_tokens, sampled=live, head_kind=head_kind
        )

    if workload.request_rate:
        rows = _rows_in_flight(workload.request_rate, workload.osl, batch, mean_step_ns)
    itl_ns = mean_step_ns(rows)
    prefill_steps = -(-workload.isl // step_tokens)
    prefill_ns = prefill_steps * step_ns(
        fit,
        layers=layers,
        rows=rows + workload.isl / prefill_steps,
        kv_tokens=rows * (workload.isl + workload.osl / 2) + workload.isl / 2,
        sampled=rows,
        head_kind=head_kind,
    )
    waiting = max(0.0, (workload.concurrency or 0) - batch)
    queue_ns = waiting / max(rows, 1e-9) * workload.osl * itl_ns
    ttft_ns = queue_ns + prefill_ns
    return Prediction(
        rows=rows,
        tokens_per_second=rows / itl_ns * 1e9,
        itl_ms=itl_ns / 1e6,
        ttft_ms=ttft_ns / 1e6,
        e2e_ms=(ttft_ns + workload.osl * itl_ns) / 1e6,
    )


def _rows_in_flight(rate: float, osl: int, batch: int, lasts_ns: Callable[[float], float]) -> float:
    """Little's law by fixed point: rows = rate * osl * t_step(rows), at most the batch."""
    rows = 1.0
    for _ in range(50):
        rows = min(float(batch), rate * osl * lasts_ns(rows) / 1e9)
    return max(rows, 1e-6)


def fit(points: Sequence[StepPoint]) -> StepTimeFit:
    """Non-negative least squares of the relative error over the measured shapes. ValueError: fewer than
    four points.
    """
    if len(points) < 4:
        raise ValueError(f"a timing fit needs at least 4 points, got {len(points)}")
    kinds = sorted({point.head_kind for point in points})
    rows = [_features(point, kinds) for point in points]
    scale = [point.weight**0.5 / point.step_ns for point in points]
    design = [[value * s for value in row] for row, s in zip(rows, scale, strict=True)]
    target = [point.step_ns * s for point, s in zip(points, scale, strict=True)]
    solution = _non_negative_least_squares(design, target)
    residuals = sorted(
        abs(sum(c * v for c, v in zip(solution, row, strict=True)) / point.step_ns - 1)
        for row, point in zip(rows, points, strict=True)
    )
    heads = {
        kind: HeadCost(round(solution[4 + 2 * i]), round(solution[5 + 2 * i])) for i, kind in enumerate(kinds)
    }
    return StepTimeFit(
        step_ns=round(solution[0]),
        per_layer_ns=round(solution[1]),
        per_layer_row_ns=round(solution[2]),
        per_layer_kv_token_ns=round(solution[3]),
        heads=heads,
        error_percent=round(100 * residuals[min(len(residuals) - 1, int(0.95 * len(residuals)))]),
    )


def _features(point: StepPoint, kinds: Sequence[str]) -> list[float]:
    row = [1.0, point.layers, point.layers * point.rows, point.layers * point.kv_tokens]
    for kind in kinds:
        row += [1.0, point.sampled] if kind == point.head_kind and point.sampled else [0.0, 0.0]
    return row


def _non_negative_least_squares(design: list[list[float]], target: list[float]) -> list[float]:
    """Coordinate descent on the normal equations; columns are scaled to unit length so that it converges
    fast.

    Where every step samples, the constants of step and head are not told apart by the data; a whisper
    of ridge settles it.
    """
    width = len(design[0])
    norms = [sum(row[j] ** 2 for row in design) ** 0.5 or 1.0 for j in range(width)]
    unit = [[row[j] / norms[j] for j in range(width)] for row in design]
    gram = [[sum(row[i] * row[j] for row in unit) for j in range(width)] for i in range(width)]
    moment = [sum(row[i] * t for row, t in zip(unit, target, strict=True)) for i in range(width)]
    solution = [0.0] * width
    for _ in range(4000):
        moved = 0.0
        for i in range(width):
            gradient = moment[i] - sum(gram[i][j] * solution[j] for j in range(width) if j != i)
            updated = max(0.0, gradient / (gram[i][i] + 1e-9))
            moved = max(moved, abs(updated - solution[i]))
            solution[i] = updated
        if moved < 1e-12:
            break
    return [value / norm for value, norm in zip(solution, norms, strict=True)]
