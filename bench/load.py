"""A saturating load on an engine in this process: more requests than rows, all of one length, until time
is up.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from helios_server.engine.engine import Engine
from helios_server.engine.request import Event, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams


@dataclass(frozen=True)
class Load:
    """`rows`: most in one step; `tokens_per_second`: generated, between the two ends of the measured
    window; `latency_ms`: of the tokens in that, by quantile of `ttft` (from handing in, so with the wait for
    a row) and of `itl`.
    """

    rows: int
    tokens_per_second: float
    latency_ms: dict[str, float] = field(default_factory=dict)


def saturate(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    *,
    osl: int,
    in_flight: int,
    warm_up: float,
    seconds: float,
) -> Load:
    """Keeps `in_flight` requests in the engine for warm_up + seconds; counts tokens in the second part."""
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
    begin = time.monotonic() + warm_up
    tokens = 0
    while (now := time.monotonic()) < begin + seconds:
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
    return Load(engine.telemetry().batch_reached, tokens / measured, _latencies(waits))


def _latencies(waits: dict[str, list[float]]) -> dict[str, float]:
    """Milliseconds. A run that was too short for any has none."""
    found: dict[str, float] = {}
    for name, seconds in waits.items():
        ordered = sorted(seconds)
        for percent in (50, 99) if ordered else ():
            place = min(len(ordered) - 1, len(ordered) * percent // 100)
            found[f"{name}-p{percent}"] = round(1000 * ordered[place], 2)
    return found
