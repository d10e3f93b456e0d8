"""A saturating load on an engine in this process: more requests than rows, all of one length, until time
is up.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass

from helios_server.engine.engine import Engine
from helios_server.engine.request import Event, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams


@dataclass(frozen=True)
class Load:
    """`rows`: most in one step; `tokens_per_second`: generated, between the two ends of the measured
    window.
    """

    rows: int
    tokens_per_second: float


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
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    numbers = itertools.count()
    source = itertools.cycle(prompts)

    def submit() -> None:
        sampling = SamplingParams(max_tokens=osl, ignore_eos=True)
        name = f"load-{next(numbers)}"  # its own salt too: a prompt that comes again is computed again
        engine.submit(GenerationRequest(name, next(source), sampling, cache_salt=name), events.put)

    for _ in range(in_flight):
        submit()
    begin = time.monotonic() + warm_up
    tokens = 0
    while (now := time.monotonic()) < begin + seconds:
        event = events.get()
        if isinstance(event, TokensEvent):
            tokens += len(event.token_ids) if now >= begin else 0
        elif isinstance(event, FinishedEvent):
            submit()
        else:
            raise event.error
    measured = time.monotonic() - begin
    return Load(engine.telemetry().batch_reached, tokens / measured)
