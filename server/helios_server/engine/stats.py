"""Counts and distributions of what was served, kept by the engine thread and read as snapshots.

Called by the engine after every step. Durations come in as arguments; it must read no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from helios_contract.telemetry import Histogram, StepTiming

from helios_server.engine.request import FinishedEvent
from helios_server.engine.scheduler import StepPlan

_MS = (1, 2, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
_TTFT_MS = (*_MS, 20000, 40000, 80000, 160000, 640000, 2560000)
_ITL_MS = (
    2.5,
    5,
    7.5,
    10,
    15,
    20,
    25,
    30,
    40,
    50,
    60,
    75,
    100,
    150,
    200,
    300,
    400,
    500,
    750,
    1000,
    2500,
    5000,
    10000,
)
_E2E_MS = (
    300, 500, 800, 1000, 1500, 2000, 2500, 5000, 10000, 15000, 20000, 30000, 40000, 50000, 60000, 120000,
    240000, 480000, 960000, 1920000, 7680000,
)  # fmt: skip
_CONFIDENCE_PERCENT = tuple(range(5, 100, 5))
_RATE_WINDOW_SECONDS = 10.0
_MAX_SHAPES = 64
_FEW_ROWS = 8


class Recorder:
    """A histogram being filled. bounds: upper bounds of the buckets, ascending, the last bucket is open."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._told: Histogram | None = None

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        self._told = None

    def snapshot(self) -> Histogram:
        self._told = self._told or Histogram(self._bounds, tuple(self._counts), self._sum)
        return self._told


@dataclass(slots=True)
class _Shape:
    """Sums over the steps of one shape. rows, kv_tokens: tokens; sampled: rows; seconds: their durations;
    told: what they are on average, until there is one more."""

    layers: int
    count: int = 0
    rows: int = 0
    sampled: int = 0
    kv_tokens: int = 0
    seconds: float = 0.0
    told: StepTiming | None = None

    def add(self, rows: int, sampled: int, kv_tokens: int, seconds: float) -> None:
        self.count += 1
        self.rows += rows
        self.sampled += sampled
        self.kv_tokens += kv_tokens
        self.seconds += seconds
        self.told = None

    def snapshot(self) -> StepTiming:
        self.told = self.told or self._mean()
        return self.told

    def _mean(self) -> StepTiming:
        count = self.count
        return StepTiming(
            layers=self.layers,
            rows=round(self.rows / count),
            sampled=round(self.sampled / count),
            kv_tokens=round(self.kv_tokens / count),
            count=count,
            mean_us=self.seconds / count * 1e6,
        )


class Window:
    """What is counted since the last change of limits."""

    def __init__(self) -> None:
        self.batch_reached = 0
        self.requests = 0
        self.ttft_ms = Recorder(_TTFT_MS)
        self.itl_ms = Recorder(_ITL_MS)
        self.e2e_ms = Recorder(_E2E_MS)
        self.confidence_percent = Recorder(_CONFIDENCE_PERCENT)
        self._shapes: dict[tuple[int, ...], _Shape] = {}

    def step(self, layers: int, rows: int, sampled: int, kv_tokens: int, seconds: float) -> None:
        """One step whose rows all ran `layers` layers."""
        key = (layers, _bucket(rows), _bucket(sampled), kv_tokens.bit_length())
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _MAX_SHAPES:
                return
            shape = self._shapes[key] = _Shape(layers)
        shape.add(rows, sampled, kv_tokens, seconds)

    def steps(self) -> tuple[StepTiming, ...]:
        """Mean duration by shape."""
        return tuple([shape.snapshot() for shape in self._shapes.values()])


class Stats:
    """Counts since boot; `window` begins anew with every change of limits."""

    def __init__(self) -> None:
        self.finished = 0
        self.failed = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.preemptions = 0
        self.window = Window()
        self._recent: deque[tuple[float, int]] = deque()  # of steps: seconds, tokens generated
        self._recent_seconds, self._recent_tokens = 0.0, 0
        self._request_seconds = 0.0

    def changed(self) -> None:
        """The limits changed."""
        self.window = Window()

    def step(self, plan: StepPlan, tokens: int, seconds: float, shaped: bool = True) -> None:
        """A step ran and made `tokens` tokens of output. shaped: its rows ran at their sequences' depths.

        One of nothing but the server's own warm-up is not counted.
        """
        counted = sampled = rows = context = 0
        depths = set[int]()
        for row in plan.rows:
            counted += row.sequence.ordinal
            sampled += row.samples
            rows += row.count
            context += row.start + row.count
            depths.add(row.sequence.depth)
        if not counted:
            return
        self._worked(seconds, tokens)
        self.window.batch_reached = max(self.window.batch_reached, len(plan.rows))
        if shaped and len(depths) == 1:
            self.window.step(depths.pop(), rows, sampled, context, seconds)

    def token(self, confidence: float, seconds: float, first: bool) -> None:
        """A token came, `seconds` after the one before it, or after the request when it is the first."""
        self.window.confidence_percent.add(100 * confidence)
        (self.window.ttft_ms if first else self.window.itl_ms).add(seconds * 1e3)

    def _worked(self, seconds: float, tokens: int) -> None:
        self.generation_tokens += tokens
        self._recent.append((seconds, tokens))
        self._recent_seconds += seconds
        self._recent_tokens += tokens
        while self._recent_seconds - self._recent[0][0] > _RATE_WINDOW_SECONDS:
            gone, tokens = self._recent.popleft()
            self._recent_seconds -= gone
            self._recent_tokens -= tokens

    def finish(self, event: FinishedEvent) -> None:
        """A request ended with an answer."""
        self.finished += 1
        self.window.requests += 1
        self._request_seconds += event.times.finished - event.times.arrived
        self.window.e2e_ms.add((event.times.finished - event.times.arrived) * 1e3)

    @property
    def seconds_per_request(self) -> float:
        """Mean time from arrival to end, of all requests since boot."""
        return self._request_seconds / self.finished if self.finished else 0.0

    @property
    def tokens_per_second(self) -> float:
        """New tokens of output per second, over the last 10 seconds with work."""
        return self._recent_tokens / self._recent_seconds if self._recent_seconds else 0.0


def _bucket(rows: int) -> int:
    """Few rows are told apart; above, four buckets per doubling."""
    if rows <= _FEW_ROWS:
        return rows
    scale = 1 << (rows.bit_length() - 3)
    return rows // scale * scale
