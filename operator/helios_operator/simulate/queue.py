"""The rows of one pod as a queue: how long requests wait and run, by the timing law.

An event is a request that comes or ends, never a step: between two events every row makes the same steps,
each as long as the law says of so many rows with so much context. A prompt lengthens the steps that compute
it for all rows, as chunked prefill does; a request holds a row, and the keys and values of its whole length,
from its admission to its end. What is left out: preemption, shared prefixes, requests that end early.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush

from helios_contract.results import StepTimeFit
from helios_server.planning.timing import step_ns

from helios_operator.simulate.traffic import Request

Ended = Callable[[Request, float, float], None]
"""Told of a request with the times of its first token and of its end, in seconds."""


@dataclass(frozen=True)
class Law:
    """The timing law of a pod at one depth, in seconds. rows, tokens: that memory holds."""

    fit: StepTimeFit
    layers: int
    head_kind: str
    step_tokens: int
    rows: int
    tokens: int
    _steps: dict[int, float] = field(default_factory=dict, compare=False)
    _prompts: dict[tuple[int, int], float] = field(default_factory=dict, compare=False)

    @cached_property
    def of_context(self) -> float:
        """Of a token that is attended to, in one step."""
        return self.layers * self.fit.per_layer_kv_token_ns / 1e9

    def step(self, rows: int, context: float) -> float:
        """Of a step in which all rows decode."""
        known = self._steps.get(rows)
        if known is None:
            known = self._steps[rows] = self._lasts(rows, rows)
        return known + self.of_context * context

    def prompt(self, tokens: int, rows: int) -> float:
        """By which a prompt of so many tokens lengthens the steps that compute it; one of the rows is its
        own."""
        known = self._prompts.get((tokens, rows))
        if known is None:
            steps = -(-tokens // self.step_tokens)
            each = self._lasts(rows - 1 + tokens / steps, rows) - self._lasts(rows, rows)
            known = steps * (each + self.of_context * tokens / 2)
            self._prompts[tokens, rows] = known
        return known

    def _lasts(self, rows: float, sampled: int) -> float:
        """KeyError: a kind of head that was not timed."""
        ns = step_ns(
            self.fit,
            layers=self.layers,
            rows=rows,
            kv_tokens=0,
            sampled=sampled,
            head_kind=self.head_kind,
        )
        return ns / 1e9


class Queue:
    """Give requests with `come`, in order of time; `advance` tells `ended` of those that end until then."""

    def __init__(self, law: Law, most_waiting: int, ended: Ended, refused: Callable[[Request], None]) -> None:
        self.law, self.most_waiting = law, most_waiting
        self._ended, self._refused = ended, refused
        self._clock = 0.0
        self._steps = 0.0
        self._running: list[tuple[float, int, Request, float]] = []  # step of its end, in order of admission
        self._coming: deque[tuple[float, Request]] = deque()
        self._waiting: deque[Request] = deque()
        self._admitted = 0
        self._context = 0.0  # tokens attended to in a step, a mean over each request's life
        self._held = 0  # tokens of keys and values
        self.most_rows = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not (self._running or self._coming or self._waiting)

    def come(self, request: Request, at: float) -> None:
        self._coming.append((at, request))

    def hold(self, until: float) -> None:
        """Nothing runs before then: a model is loaded."""
        self._clock = max(self._clock, until)

    def advance(self, until: float) -> None:
        if self.idle:
            return
        while True:
            lasts = self._step_seconds()
            ends = self._clock + (self._running[0][0] - self._steps) * lasts if self._running else math.inf
            comes = max(self._coming[0][0], self._clock) if self._coming else math.inf
            now = min(ends, comes)
            if now > until or self.idle:
                self._pass(until, lasts)
                return
            self._pass(now, lasts)
            if ends <= comes:
                self._end()
            else:
                self._arrive(self._coming.popleft()[1])

    def leftovers(self) -> list[Request]:
        """Those that have not ended."""
        return [each[2] for each in self._running] + list(self._waiting) + [r for _, r in self._coming]

    def _step_seconds(self) -> float:
        return self.law.step(len(self._running), self._context)

    def _pass(self, now: float, lasts: float) -> None:
        if now > self._clock:
            if self._running:
                self._steps += (now - self._clock) / lasts
            self._clock = now

    def _end(self) -> None:
        step, _, request, first = heappop(self._running)
        self._steps = max(self._steps, step)
        self._context -= _mean_context(request)
        self._held -= request.prompt_tokens + request.output_tokens
        self._ended(request, min(first, self._clock), self._clock)
        while self._waiting and self._fits(self._waiting[0]):
            self._admit(self._waiting.popleft())

    def _arrive(self, request: Request) -> None:
        if request.prompt_tokens + request.output_tokens > self.law.tokens:
            self._refused(request)
        elif not self._waiting and self._fits(request):
            self._admit(request)
        elif len(self._waiting) < self.most_waiting:
            self._waiting.append(request)
        else:
            self._refused(request)

    def _fits(self, request: Request) -> bool:
        needed = self._held + request.prompt_tokens + request.output_tokens
        return not self._running or (len(self._running) < self.law.rows and needed <= self.law.tokens)

    def _admit(self, request: Request) -> None:
        law, rows = self.law, len(self._running) + 1
        steps = -(-request.prompt_tokens // law.step_tokens)
        self._clock += law.prompt(request.prompt_tokens, rows)
        self._context += _mean_context(request)
        self._held += request.prompt_tokens + request.output_tokens
        self._admitted += 1
        first = self._clock + steps * law.step(rows, self._context)
        last = self._steps + steps + max(0, request.output_tokens - 1)
        heappush(self._running, (last, self._admitted, request, first))
        self.most_rows = max(self.most_rows, rows)


def _mean_context(request: Request) -> float:
    return request.prompt_tokens + request.output_tokens / 2
