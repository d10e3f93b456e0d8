"""A crowd on the native path: requests of any length and depth come, are cancelled and preempted while
budget, heads, batch and model change, and what each says is, bit for bit, what the plain loop says.

`make test-long` asks 5,000 requests in each format; otherwise it is a small part of that.
"""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from helios_contract.limits import Limits
from helios_contract.serves import Bundle
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import Event, FinishedEvent, FinishReason, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import InvalidRequest

from tests.checkpoints import VOCAB, make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.company import idle, wait_until
from tests.engine.helpers import Stream, audit_of, limits_for, prompt_of, running, send
from tests.engine.natives import every_format, needs_kernels
from tests.engine.oracle import Library
from tests.sizes import examples

REQUESTS, STEPS_BETWEEN = examples(60, long=5000), examples(10, long=50)
AT_ONCE, PAGES, EXITS = 24, 16, (2, 4)


@dataclass(frozen=True)
class Asked:
    """`cancelled_at`: the token at which its caller gives up, beyond its length for most."""

    prompt: tuple[int, ...]
    depth: int
    sampling: SamplingParams
    cancelled_at: int


def asked(dice: random.Random) -> Asked:
    tokens = dice.randint(1, 24)
    sampling = SamplingParams(
        max_tokens=tokens,
        temperature=dice.choice((0.0, 0.0, 0.9)),
        seed=dice.randrange(1 << 30),
        ignore_eos=True,
        logprobs=True,
    )
    prompt = tuple(dice.randrange(VOCAB) for _ in range(dice.randint(1, 60)))
    return Asked(prompt, dice.choice((0, 2, 4)), sampling, dice.choice((1 << 30,) * 5 + (tokens // 2,)))


@dataclass
class Changing:
    """Every so many steps other limits, in turn; the pool stays short of pages."""

    engine: Engine
    turns: list[dict[str, Any]]
    base: Limits
    made: list[Future[Any]] = field(default_factory=list)
    ended: bool = False

    def begin(self) -> None:
        self._limits = itertools.cycle(self.turns)
        self._steps = 0
        self.engine.at_boundary(self._before_step).result()

    def _before_step(self) -> None:
        serving = self.engine.serving
        if self.ended:
            return
        if serving.runner is not None:
            serving.resize(max(PAGES, serving.scheduler.pages.used))
        self._steps += 1
        if self._steps % STEPS_BETWEEN == 0 and all(change.done() for change in self.made):
            generation = self.base.generation + len(self.made) + 1
            limits = replace(self.base, generation=generation, **next(self._limits))
            self.made.append(self.engine.set_limits(limits))
        self.engine.at_boundary(self._before_step)


def submit(engine: Engine, one: Asked, name: str, room: threading.Semaphore) -> Stream:
    stream = Stream(name)

    def heard(event: Event) -> None:
        if isinstance(event, TokensEvent) and event.index == one.cancelled_at:
            engine.abort(name)
        stream(event)
        if not isinstance(event, TokensEvent):
            room.release()

    try:
        engine.submit(GenerationRequest(name, one.prompt, one.sampling, one.depth), heard)
    except InvalidRequest:  # the budget of the moment is below what it asks for
        engine.submit(GenerationRequest(name, one.prompt, one.sampling), heard)
    return stream


def turns(tiny: Path, other: Path, heads: Bundle) -> list[dict[str, Any]]:
    """Shrink, grow, other heads, less batch, another model and back."""
    return [
        {"layer_budget": 4},
        {"layer_budget": 0, "exits_uri": heads.uri, "exits_digest": heads.digest},
        {"layer_budget": 2, "exits_uri": heads.uri, "exits_digest": heads.digest, "max_batch_size": 5},
        {"model_uri": f"file://{other}"},
        {"model_uri": f"file://{tiny}"},
    ]


def crowded(engine: Engine) -> None:
    """Answers that need more pages than there are: the newest are sent back."""
    engine.at_boundary(lambda: engine.serving.resize(PAGES)).result()
    streams = [send(engine, prompt_of(30, seed), max_tokens=60, ignore_eos=True) for seed in range(6)]
    for stream in streams:
        stream.result()
    assert engine.telemetry().preemptions > 0


@needs_kernels
@pytest.mark.long
@pytest.mark.timeout(3600)
@every_format
def test_what_is_said_is_what_the_plain_loop_says(tmp_path: Path, dtype: str) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", "qwen3", layers=6, seed=1)
    other = make_checkpoint(tmp_path / "other", layers=5, seed=2)
    heads = random_bundle(tmp_path / "heads", tiny, EXITS, 3)
    limits = {"exit_layers": EXITS, "audit": audit_of(20), "max_queue_size": 64, "max_batch_size": 16}
    config = EngineConfig(dtype=dtype, max_context=128, step_tokens=48, threads=1)
    dice, room, streams = random.Random(dtype), threading.Semaphore(AT_ONCE), list[tuple[Asked, Stream]]()
    with running(tiny, config, **limits) as engine:
        assert engine.serving.weights.backbone.is_native
        crowded(engine)
        changing = Changing(engine, turns(tiny, other, heads), limits_for(tiny, **limits))
        changing.begin()
        for index in range(REQUESTS):
            room.acquire()
            one = asked(dice)
            streams.append((one, submit(engine, one, f"asked-{index}", room)))
        ends = [stream.end() for _, stream in streams]
        changing.ended = True
        for change in changing.made:
            change.result(60)
        wait_until(lambda: idle(engine))
        told = engine.telemetry()
        assert engine.failed is None
    assert told.requests_failed == 0
    assert len(changing.made) >= len(changing.turns)
    library = Library(dtype, {heads.digest: heads.uri})
    for (one, stream), end in zip(streams, ends, strict=True):
        assert isinstance(end, FinishedEvent)
        assert tuple(stream.tokens) == end.output_ids
        if end.reason is not FinishReason.ABORT:
            assert len(end.output_ids) == one.sampling.max_tokens
        if end.output_ids:
            library.check(one.prompt, end, one.sampling)
    assert any(len(end.spans) > 1 for end in ends if isinstance(end, FinishedEvent))
    assert any(end.reason is FinishReason.ABORT for end in ends if isinstance(end, FinishedEvent))
