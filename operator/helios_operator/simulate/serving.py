"""A simulated pod whose requests queue: the detectors and audits of `pods`, the times of `queue`.

Made by the world of `replay`. What it tells of itself is made of requests that ended, as a real pod's is. It
must not choose what is served.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from helios_contract.limits import Limits
from helios_contract.telemetry import BreachCounter, Histogram
from helios_server.planning.memory import MIB, capacity

from helios_operator.simulate.pods import SimulatedPod
from helios_operator.simulate.queue import Law, Queue
from helios_operator.simulate.traffic import Request
from helios_operator.simulate.truth import Model
from helios_operator.simulate.world import World

if TYPE_CHECKING:
    from helios_operator.simulate.replay import Replay

BOUNDS = tuple(round(2**power, 3) for power in (n / 2 for n in range(44)))
"""Milliseconds, from 1 to half an hour."""
_WINDOW, _LIMIT = 100, 50
"""Tokens of the breach counter, and breaches in them that it bears."""


class ServingPod(SimulatedPod):
    """Requests come by `take`, and are served until the world's time by `advance`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queue: Queue | None = None
        self._begin_windows()
        self._breaching: deque[tuple[int, int, float]] = deque()
        self._breaches = 0.0

    @property
    def _replay(self) -> Replay:
        return cast("Replay", self.world)

    # -- requests --------------------------------------------------------------------------------------------

    def take(self, request: Request) -> None:
        if self.queue is None:
            self._open()
        if self.queue is not None:
            self.queue.come(request, request.arrived)

    def advance(self, document: Limits) -> None:
        if self.queue is not None:
            self.queue.advance(self._replay.clock)
            self.running, self.waiting = self.queue.running, self.queue.waiting
        if self.draining:
            return
        was_ready = self.ready
        super().advance(document)
        if self.ready and not was_ready:
            self._open()

    def drain(self) -> None:
        """No new stream; those that run or wait end by themselves."""
        self.draining, self.ready = True, False

    def _open(self) -> None:
        queue = Queue(self._law(), self.limits.max_queue_size, self._ended, self._replay.ledger.refuse)
        queue.hold(self._replay.clock)
        self.queue = queue

    def _take(self, document: Limits) -> None:
        before = self.limits
        super()._take(document)
        if self.limits is before or self.queue is None:
            return
        if (before.model_uri, before.precision) != (self.limits.model_uri, self.limits.precision):
            self.queue.hold(self._replay.clock + self.world.start_seconds)
        self.queue.law, self.queue.most_waiting = self._law(), self.limits.max_queue_size

    def _ended(self, request: Request, first: float, end: float) -> None:
        replay = self._replay
        replay.ledger.end(request, self.limits, first, end)
        self.finish(request.text, replay, replay.began + timedelta(seconds=end))
        self._count_breaches(request, end)
        milliseconds = (first - request.arrived) * 1000, (end - request.arrived) * 1000
        gap = (end - first) * 1000 / max(1, request.output_tokens - 1)
        for place, value in enumerate((milliseconds[0], gap, milliseconds[1])):
            self._counted[place][bisect_left(BOUNDS, value)] += 1
            self._sums[place] += value

    # -- the laws --------------------------------------------------------------------------------------------

    def _law(self) -> Law:
        return law_of(self.limits, self._model(), self.world)

    def _rows(self) -> int:
        return self.queue.law.rows if self.queue else self._law().rows

    # -- what it watches -------------------------------------------------------------------------------------

    def _watch_confidence(self, domain: str, now: object) -> None:
        """A profile does not say how a request's confidence varies: that alarm is not simulated."""

    def _count_breaches(self, request: Request, end: float) -> None:
        """Tokens under the threshold, by the mean confidence at the depth, if confidence c is as likely as
        c^(m/(1-m) - 1): the one density of that shape with the mean m."""
        limits, model = self.limits, self._model()
        threshold = limits.breach_threshold or model.resolved().breach_thresholds.get(limits.layer_budget, 0)
        mean = self._replay.confidence(request.text, model, limits)
        if not threshold or mean is None:
            return
        share = threshold ** (mean / (1 - mean)) if mean < 1 else 0.0
        self._breaching.append((self.requests, request.output_tokens, share * request.output_tokens))
        while sum(tokens for _, tokens, _ in self._breaching) - self._breaching[0][1] >= _WINDOW:
            self._breaching.popleft()
        tokens = sum(tokens for _, tokens, _ in self._breaching)
        self._breaches = _WINDOW * sum(each for _, _, each in self._breaching) / max(_WINDOW, tokens)
        if tokens >= _WINDOW and self._breaches > _LIMIT:
            now = self._replay.began + timedelta(seconds=end)
            self._alarm("Breach", "Down", self._breaching[0][0], self._breaches, now)
            self._breaching.clear()

    # -- what it tells ---------------------------------------------------------------------------------------

    def _begin_windows(self) -> None:
        self._counted = [[0] * (len(BOUNDS) + 1) for _ in range(3)]
        self._sums = [0.0, 0.0, 0.0]

    def _latencies(self) -> tuple[Histogram, Histogram, Histogram]:
        ttft, itl, e2e = (
            Histogram(BOUNDS, tuple(counts), total)
            for counts, total in zip(self._counted, self._sums, strict=True)
        )
        return ttft, itl, e2e

    @property
    def breaches(self) -> BreachCounter:
        return BreachCounter(self.limits.breach_threshold, round(self._breaches), _WINDOW)

    def _model(self) -> Model:
        return self._replay.model_of(self.limits)


def law_of(limits: Limits, model: Model, world: World) -> Law:
    """Of a pod under these limits: what fits, and how long it lasts."""
    found = model.backbone.timing(limits.precision)
    layers = limits.layer_budget or model.backbone.layers
    if found is None or found.fit is None or found.memory is None:
        raise ValueError(f"{limits.candidate} serves in {limits.precision}, which no profile timed")
    family = {each.digest: each.kind for each in world.truth.values() if each.backbone is model.backbone}
    fits = capacity(
        found.memory,
        limit_bytes=(limits.memory_mib or world.hardware.memory_mib) * MIB,
        layers=layers,
        tokens_per_request=limits.tokens_per_request,
        exit_bytes=sum(found.exit_bytes.get(kind, 0) for digest, kind in family.items() if digest),
        audit_bytes=found.audit_bytes if limits.audit.percent else 0,
        max_rows=limits.max_batch_size,
    )
    kind = "bare" if layers >= model.backbone.layers else model.kind
    steps = found.memory.step_tokens
    return Law(found.fit, layers, kind, steps, fits.rows, fits.tokens)
