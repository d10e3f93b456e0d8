"""A saturating load on an engine in this process: more requests than rows, all of one length, until time
is up.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

from helios_server.engine.engine import Engine
from helios_server.engine.request import Event, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError
from helios_server.telemetry.energy import EnergyMeter

from bench.report import percentile

T = TypeVar("T")
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """`rows`: most in one step; `tokens_per_second`, `joules_per_token`: of what was generated between the
    two ends of the measured window; joules None: nothing measures energy. `latency_ms`: of the tokens in that
    window, by quantile of `ttft` (from handing in, so with the wait for a row) and of `itl`.
    """

    rows: int
    tokens_per_second: float
    latency_ms: dict[str, float] = field(default_factory=dict)
    joules_per_token: float | None = None
    cpu_seconds_per_token: float = 0.0
    """Of the whole process, this load's own among them."""


def alone(run: Callable[..., T], *arguments: Any) -> T:
    """In a process that ends with it: what an engine leaves behind would count as held at the next start."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_told, run, *arguments).result()


def _told(run: Callable[..., T], *arguments: Any) -> T:
    """An error of ours does not survive the way between processes, its words do."""
    try:
        return run(*arguments)
    except HeliosError as error:
        raise RuntimeError(str(error)) from None


def saturate(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    *,
    osl: int,
    in_flight: int,
    warm_up: float,
    seconds: float,
    rows: int = 0,
    meter: EnergyMeter | None = None,
) -> Load:
    """Keeps `in_flight` requests in the engine for warm_up + seconds; counts tokens in the second part. rows:
    the warm-up begins when so many have run in one step, or after a minute."""
    events: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
    before: dict[str, float] = {}  # when a request was handed in, or told its last token
    waits: dict[str, list[float]] = {"ttft": [], "itl": []}
    numbers = itertools.count()
    source = itertools.cycle(prompts)

    def submit() -> None:
        sampling = SamplingParams(max_tokens=osl, ignore_eos=True)
        name = f"load-{next(numbers)}"  # its own salt too: a prompt that comes again is computed again
        before[name] = time.monotonic()
        request = GenerationRequest(name, next(source), sampling, cache_salt=name)
        engine.submit(request, lambda event: events.put((time.monotonic(), event)))

    for _ in range(in_flight):
        submit()
    begin = time.monotonic() + (_PATIENCE_SECONDS if rows else warm_up)
    tokens, joules, cpu = 0, None, 0.0
    while (now := time.monotonic()) < begin + seconds:
        if rows and engine.telemetry().batch_reached >= rows:
            begin, rows = now + warm_up, 0
        if meter and joules is None and now >= begin:
            joules = meter.joules()
        if not cpu and now >= begin:
            cpu = time.process_time()
        came, event = events.get()
        if isinstance(event, TokensEvent):
            if now >= begin:
                tokens += len(event.token_ids)
                waits["itl" if event.index else "ttft"].append(came - before[event.request_id])
            before[event.request_id] = came
        elif isinstance(event, FinishedEvent):
            del before[event.request_id]
            submit()
        else:
            raise event.error
    measured = time.monotonic() - begin
    spent = (meter.joules() - joules) / max(tokens, 1) if meter and joules is not None else None
    used = (time.process_time() - cpu) / max(tokens, 1)
    return Load(engine.telemetry().batch_reached, tokens / measured, _latencies(waits), spent, used)


def _latencies(waits: dict[str, list[float]]) -> dict[str, float]:
    """Milliseconds. A run that was too short for any has none."""
    return {
        f"{name}-p{percent}": round(1000 * percentile(seconds, percent), 2)
        for name, seconds in waits.items()
        for percent in (50, 99)
        if seconds
    }
