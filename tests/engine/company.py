"""Requests in company: what the tests of isolation share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FailedEvent, TokensEvent
from helios_server.engine.sampling import SamplingParams

from tests.engine.helpers import WAIT_SECONDS, Stream, prompt_of, running, send

DTYPES = ("float64", "float32", "bfloat16", "float16")
SPOILT = 260
"""A token that the prompts of `prompt_of` do not have."""


@contextmanager
def serving(path: Path, dtype: str = "float64", **limits: Any) -> Iterator[Engine]:
    """An engine with two exits below its six layers, whose steps cut prompts in chunks."""
    config = EngineConfig(dtype=dtype, max_context=256, step_tokens=48)
    with running(path, config, **{"exit_layers": (2, 4)} | limits) as engine:
        yield engine


def asked() -> list[tuple[tuple[int, ...], int, SamplingParams]]:
    """Prompts of one token, of whole pages and of several steps; greedy and sampled, at every depth."""
    return [
        (
            prompt_of(length, seed),
            (0, 2, 4)[seed % 3],
            SamplingParams(
                max_tokens=40, temperature=0.9 * (seed % 2), seed=seed, ignore_eos=True, logprobs=True
            ),
        )
        for seed, length in enumerate((1, 15, 16, 17, 32, 70, 3, 100))
    ]


def ask(engine: Engine) -> list[Stream]:
    """All of them, one right after the other."""
    return [send(engine, prompt, depth, **asdict(sampling)) for prompt, depth, sampling in asked()]


def ask_one_by_one(engine: Engine) -> list[Stream]:
    """Each when the one before has ended."""
    streams = []
    for prompt, depth, sampling in asked():
        streams.append(send(engine, prompt, depth, **asdict(sampling)))
        streams[-1].result()
    return streams


def ask_at_once(engine: Engine) -> list[Stream]:
    """The same, all of them in one step: its sums are the same, bit by bit, whenever it is asked."""
    return engine.at_boundary(lambda: ask(engine)).result()


def answers(streams: list[Stream]) -> list[tuple[Any, ...]]:
    """Everything that a client sees but times."""
    told = []
    for stream in streams:
        end = stream.result()
        logprobs = [event.logprobs for event in stream.events if isinstance(event, TokensEvent)]
        told.append((end.output_ids, end.text, end.mean_confidence, logprobs))
    return told


def outputs(streams: list[Stream]) -> list[tuple[int, ...]]:
    return [stream.result().output_ids for stream in streams]


def failure(stream: Stream) -> FailedEvent:
    event = stream.end()
    assert isinstance(event, FailedEvent), event
    return event


def idle(engine: Engine) -> bool:
    """Whether nothing is held any more, whatever became of the requests."""
    load = engine.load()
    return (load.running, load.waiting, load.kv_used_tokens) == (0, 0, 0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
