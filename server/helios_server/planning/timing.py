"""The timing law: how long a step lasts, and what that makes of a workload.

    t_step = step + k * (layer(rows) + per_layer_kv_token * kv_tokens) + head_kind(sampled)

`rows` are the new tokens in the step, prefill included; `sampled` are the rows that go through the LM
head, which costs nothing in a step without any. `layer` and `head` are known at the rows that were timed and
straight between them; beyond the last they go on by the line through first and last, and `timed_rows` of the
fit says where that begins. Called by the profile (with a fit from `planning.fitting`), by the decisions (to
predict, and to refine a fit with what serving measured). It must not read clocks: durations come in as
arguments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helios_contract.results import HeadCost, StepTimeFit

OWN_HEAD = "bare"
"""The model's own; every other kind is that one with something before it."""


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
    line = fit.per_layer_ns, fit.per_layer_row_ns
    layer_ns = _at(rows, fit.at_rows, fit.layer_at_ns, *line) + fit.per_layer_kv_token_ns * kv_tokens
    head_ns = _head_ns(fit, fit.heads[head_kind], sampled) if sampled else 0
    return fit.step_ns + layers * layer_ns + head_ns


def _head_ns(fit: StepTimeFit, head: HeadCost, sampled: float) -> float:
    """The model's own head, and what the line of another kind has beside its line."""
    own = fit.heads.get(OWN_HEAD, head)
    beside = head.base_ns - own.base_ns + (head.per_row_ns - own.per_row_ns) * sampled
    return _at(sampled, fit.at_rows, own.at_ns, own.base_ns, own.per_row_ns) + beside


def _at(rows: float, at_rows: Sequence[int], at_ns: Sequence[int], base_ns: int, per_row_ns: int) -> float:
    """What so many rows cost. at_ns: at the first of `at_rows`; without any, the line alone tells. Part of a
    row, of a step that is the mean of several, costs what one does."""
    if not at_ns:
        return base_ns + per_row_ns * rows
    timed = at_rows[: len(at_ns)]
    if rows <= timed[0]:
        return at_ns[0]
    if rows >= timed[-1]:
        return at_ns[-1] + per_row_ns * (rows - timed[-1])
    above = bisect_left(timed, rows)
    share = (rows - timed[above - 1]) / (timed[above] - timed[above - 1])
    return at_ns[above - 1] + share * (at_ns[above] - at_ns[above - 1])


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
