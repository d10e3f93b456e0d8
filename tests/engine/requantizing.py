"""Asking an engine for another precision, with streams under way, and comparing what they said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig, LimitsOutcome
from helios_server.engine.request import FinishedEvent
from helios_server.engine.runner import Runner
from helios_server.engine.sampling import SamplingParams

from tests.engine.helpers import Stream, prompt_of, send
from tests.engine.natives import TORCH
from tests.engine.oracle import Library

PROMPTS = [prompt_of(9 + 5 * i, i) for i in range(20)]
LONG = {"max_tokens": 64, "ignore_eos": True}
DEPTHS = {"exit_layers": (2, 4)}
PUBLISHED, WEIGHTS, BOTH = Precision(), Precision("int8"), Precision("int8", "int8")


def config_of(isa: str) -> EngineConfig:
    return EngineConfig(
        dtype="float32" if isa == TORCH else "float16", max_context=512, step_tokens=48, threads=1
    )


NATIVE = config_of("native")


def ask(engine: Engine, precision: Precision | None = None, **changes: Any) -> Limits:
    """The limits that hold, in another precision and with other changes."""
    current = engine.serving.limits
    if precision is not None:
        changes |= {"weight_dtype": precision.weight_dtype, "kv_cache_dtype": precision.kv_cache_dtype}
    return replace(current, generation=current.generation + 1, **changes)


def change(engine: Engine, precision: Precision | None = None, **changes: Any) -> LimitsOutcome:
    return engine.set_limits(ask(engine, precision, **changes)).result(60)


@contextmanager
def unhurried() -> Iterator[None]:
    """Steps take their time until the end of it: what a tiny model answers is still under way then."""
    over, real = threading.Event(), Runner.run

    def run(self: Runner, *arguments: Any) -> Any:
        over.wait(0.02)
        return real(self, *arguments)

    with patch.object(Runner, "run", run):
        try:
            yield
        finally:
            over.set()


def sampling(index: int, count: int) -> dict[str, Any]:
    """Greedy and sampled. The last stream has long to go, whatever the others do."""
    tokens = 300 if index == count - 1 else 40
    return {"max_tokens": tokens, "ignore_eos": True, "temperature": 0.8 * (index % 2)}


def under_way(engine: Engine, count: int = len(PROMPTS)) -> list[Stream]:
    streams = [send(engine, prompt, **sampling(index, count)) for index, prompt in enumerate(PROMPTS[:count])]
    for stream in streams:
        stream.wait_for(4)
    return streams


def go_on(stream: Stream) -> None:
    """Waits for tokens that what serves now produces."""
    stream.wait_for(len(stream.tokens) + 4)


def finished(streams: list[Stream], library: Library) -> Iterator[FinishedEvent]:
    """Every stream's end, after it has been compared with the plain loop along its spans."""
    for index, (prompt, stream) in enumerate(zip(PROMPTS, streams, strict=False)):
        event, asked = stream.result(), sampling(index, len(streams))
        assert len(event.output_ids) == asked["max_tokens"]
        library.check(prompt, event, SamplingParams(**asked))
        yield event


def precisions(event: FinishedEvent) -> list[Precision]:
    return [span.served.precision for span in event.spans]
