"""Faults for tests of changes: a function that raises on purpose, and streams that must not notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helios_server.engine.engine import Engine
from helios_server.engine.sampling import SamplingParams

from tests.engine.helpers import Stream, prompt_of, send
from tests.engine.oracle import Library

LIBRARY = Library("float64", {})
LONG = {"max_tokens": 120, "ignore_eos": True}
NEXT = {"max_tokens": 24, "ignore_eos": True}
PROMPTS = [prompt_of(20 + 9 * i, i) for i in range(3)]


class Fault:
    """Makes a function raise, once it is armed, the next `times` times; `met` counts."""

    def __init__(self, error: BaseException, times: int = 1) -> None:
        self.error, self.left, self.met, self.armed = error, times, 0, False

    def into(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = vars(owner)[name]
        call = real.__func__ if isinstance(real, classmethod) else real

        def broken(*args: Any, **kwargs: Any) -> Any:
            if self.armed and self.left:
                self.left, self.met = self.left - 1, self.met + 1
                raise self.error
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, classmethod(broken) if isinstance(real, classmethod) else broken)


def under_way(engine: Engine) -> list[Stream]:
    streams = [send(engine, prompt, **LONG) for prompt in PROMPTS]
    for stream in streams:
        stream.wait_for(5)
    return streams


def still_serves(engine: Engine, streams: list[Stream], model: Path, depth: int) -> None:
    """As if nothing had been tried: those under way, those that come, and the next change."""
    for prompt, stream in zip(PROMPTS, streams, strict=True):
        event = stream.result()
        LIBRARY.check(prompt, event, SamplingParams(**LONG))
        assert {span.served.depth for span in event.spans} == {depth}
        assert {span.served.model_uri for span in event.spans} == {f"file://{model}"}
    assert engine.failed is None
    assert len(send(engine, PROMPTS[0], **NEXT).result().output_ids) == 24
    current = engine.telemetry().limits
    assert current.generation == 1
    limits = replace(current, generation=3, max_batch_size=2)
    assert engine.set_limits(limits).result(60).limits.max_batch_size == 2
    assert len(send(engine, PROMPTS[1], **NEXT).result().output_ids) == 24
