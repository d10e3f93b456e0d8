"""A change that must wait for requests under way waits no longer than it may; then it is refused, and all is
as before.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helios_server.engine import changes, serving
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.room import Room
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.sequence import Sequence
from helios_server.errors import Draining, InvalidRequest, LimitsRefused

from tests.checkpoints import make_checkpoint
from tests.engine.faults import LIBRARY, PROMPTS, still_serves, under_way
from tests.engine.helpers import Stream, limits_for, prompt_of, running, send

CONFIG = EngineConfig(dtype="float64")
"""Every model with the context that its config.json names: 512 tokens, unless said otherwise."""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The same tokenizer, a shorter context."""
    return make_checkpoint(tmp_path / "short", layers=3, seed=5, max_position_embeddings=100)


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """The same tokenizer, fewer ids: the embedding is padded less."""
    return make_checkpoint(tmp_path / "narrow", layers=3, seed=6, vocab_size=305)


def begin(engine: Engine, model: Path) -> Any:
    return engine.set_limits(replace(limits_for(model), generation=2))


def closed_to(engine: Engine, **request: Any) -> InvalidRequest:
    """Tries until a change that is under way turns such a request away."""
    while True:
        try:
            send(engine, **request).result()
        except InvalidRequest as error:
            return error


# -- an exchange for a model with less room ------------------------------------------------------------------


def test_longer_requests_end_before_a_shorter_context_comes_and_shorter_ones_go_on(
    tiny: Path, short: Path
) -> None:
    with running(tiny, CONFIG) as engine:
        long = send(engine, PROMPTS[0], max_tokens=300, ignore_eos=True)
        fits = send(engine, PROMPTS[0], max_tokens=80, ignore_eos=True)
        for stream in (long, fits):
            stream.wait_for(3)
        future = begin(engine, short)
        refused = closed_to(engine, prompt=prompt_of(20), max_tokens=90, ignore_eos=True)
        assert "the context of 100 tokens" in str(refused)
        late = send(engine, PROMPTS[0], max_tokens=80, ignore_eos=True)
        assert future.result(60).limits.model_uri == f"file://{short}"
        for stream, tokens in ((long, 300), (fits, 80), (late, 80)):
            event = stream.result()
            assert len(event.output_ids) == tokens
            LIBRARY.check(PROMPTS[0], event, SamplingParams(max_tokens=tokens, ignore_eos=True))
        assert [span.served.model_uri for span in long.result().spans] == [f"file://{tiny}"]
        assert engine.telemetry().requests_failed == 0
        assert engine.info().max_context_tokens == 100


@pytest.mark.parametrize(
    "request_of",
    [
        {"prompt": (310, *range(20))},
        {"prompt": tuple(range(20)), "stop_token_ids": (319,), "min_tokens": 250},
    ],
    ids=["prompt", "stop ids"],
)
def test_requests_with_ids_that_the_new_vocabulary_lacks_end_first(
    tiny: Path, narrow: Path, request_of: dict[str, Any]
) -> None:
    with running(tiny, CONFIG) as engine:
        stream = send(engine, **request_of, max_tokens=300, ignore_eos=True)
        stream.wait_for(3)
        future = begin(engine, narrow)
        assert "outside the vocabulary of 305" in str(closed_to(engine, prompt=(311,), max_tokens=1))
        event = stream.result()
        assert {span.served.model_uri for span in event.spans} == {f"file://{tiny}"}
        future.result(60)
        assert engine.info().vocabulary_size == 305
        assert engine.telemetry().requests_failed == 0


def test_ids_that_came_out_count_as_well() -> None:
    room = Room(context=100, vocabulary=305, tokenizer="a")
    sequence = Sequence("r", (1, 2, 3), SamplingParams(), max_tokens=97)
    assert room.misfit([sequence], "a") is None
    assert "another tokenizer" in str(room.misfit([sequence], "b"))
    assert room.misfit([], "b") is None
    sequence.output_ids.append(305)
    assert "token 305, the new model's vocabulary has 305" in str(room.misfit([sequence], "a"))
    longer = Sequence("r", (1, 2, 3), SamplingParams(), max_tokens=98)
    assert "101 tokens, the new model's context is 100" in str(room.misfit([longer], "a"))


@pytest.mark.parametrize("kind", ["short", "narrow", "stranger"])
def test_an_exchange_is_refused_when_requests_do_not_end_in_time(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(changes, "PATIENCE_SECONDS", 0.05)
    shape = {"short": {"max_position_embeddings": 100}, "narrow": {"vocab_size": 305}}.get(kind, {})
    model = make_checkpoint(tmp_path / kind, layers=3, seed=7, **shape)
    if kind == "stranger":
        tokenizer = model / "tokenizer.json"
        tokenizer.write_text(tokenizer.read_text().replace("<|user|>", "<|human|>"))
    with running(tiny, CONFIG) as engine:
        held = send(engine, (310, *range(20)), max_tokens=480, ignore_eos=True)
        streams = under_way(engine)
        hold_up(engine, held)
        with pytest.raises(LimitsRefused, match=r"limits\.model_uri: .* under way"):
            begin(engine, model).result(60)
        assert engine.telemetry().preemptions == 0  # refused before anything was let go
        assert len(send(engine, (310,), max_tokens=400, ignore_eos=True).result().output_ids) == 400
        assert len(held.result().output_ids) == 480
        still_serves(engine, streams, tiny, 6)


def hold_up(engine: Engine, stream: Stream) -> None:
    """Until `stream` has ended, steps take long enough for a change to lose its patience."""
    real = engine.serving.weights.run

    def slowly(*args: Any) -> Any:
        time.sleep(0.002)
        return real(*args)

    engine.serving.weights.run = slowly  # type: ignore[method-assign]


def test_a_stranger_is_refused_new_requests_only_meanwhile(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PATIENCE_SECONDS", 0.3)
    stranger = make_checkpoint(tmp_path / "stranger", layers=3, seed=4)
    tokenizer = stranger / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|user|>", "<|human|>"))
    with running(tiny, CONFIG) as engine:
        held = send(engine, PROMPTS[0], max_tokens=490, ignore_eos=True)
        hold_up(engine, held)
        future = begin(engine, stranger)
        turned_away = 0
        while not future.done():
            try:
                send(engine, PROMPTS[1], max_tokens=1).result()
            except Draining:
                turned_away += 1
        with pytest.raises(LimitsRefused, match="another tokenizer"):
            future.result()
        assert turned_away
        assert send(engine, PROMPTS[1], max_tokens=1).result()
        assert len(held.result().output_ids) == 490


# -- a cache that has to be given up -------------------------------------------------------------------------


def test_growing_is_refused_when_long_streams_keep_the_pages(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(serving, "limit_bytes", lambda limits, _: limits.memory_mib)  # a MiB is too coarse
    with running(tiny, layer_budget=2, memory_mib=2**32, exit_layers=(2, 4)) as engine:
        facts, before = engine.serving.model.facts, engine.serving.pool.pages
        streams = under_way(engine)
        for stream in streams:
            stream.wait_for(60)
        hold_up(engine, streams[0])
        pages = 14 * 6 * facts.page_tokens * facts.kv_bytes_per_token_layer
        base = facts.process_start_bytes + facts.fixed_bytes + 6 * facts.layer_bytes
        tight = base + 4 * facts.row_bytes + facts.step_tokens * facts.activation_bytes_per_token + pages
        limits = replace(
            engine.serving.limits, generation=2, layer_budget=6, memory_mib=tight, max_batch_size=4
        )
        message = r"requests under way hold \d+ tokens of KV after 0.1 s, 6 layers leave 224"
        with pytest.raises(LimitsRefused, match=message):
            engine.set_limits(limits).result(60)
        assert engine.serving.pool.pages == engine.serving.scheduler.pages.capacity == before
        assert engine.serving.scheduler.admitting
        still_serves(engine, streams, tiny, 2)
