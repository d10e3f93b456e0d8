"""Budgets, heads and models change under running streams; no stream notices but by its spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helios_contract.limits import Limits
from helios_contract.serves import Bundle
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FinishedEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import (
    BundleError,
    HeliosError,
    InvalidRequest,
    LimitsRefused,
    ModelNotFoundError,
    OutOfMemoryBudget,
    StaleGeneration,
)

from tests.checkpoints import make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.helpers import Stream, limits_for, prompt_of, running, send
from tests.engine.oracle import Library

PROMPTS = [prompt_of(20 + 9 * i, i) for i in range(6)]
DEPTHS = {"exit_layers": (2, 4)}
LONG = {"max_tokens": 120, "ignore_eos": True}


@pytest.fixture(scope="module")
def heads(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    one, two = (random_bundle(folder / str(seed), tiny, (2, 4), seed) for seed in (1, 2))
    return one, two


@pytest.fixture(scope="module")
def library(heads: tuple[Bundle, Bundle]) -> Library:
    return Library("float64", {spec.digest: spec.uri for spec in heads})


def change(engine: Engine, **changes: object) -> Limits:
    """Applies a change to the limits that hold, and waits for it."""
    current = engine.serving.limits
    limits = replace(current, generation=current.generation + 1, **changes)  # type: ignore[arg-type]
    return engine.set_limits(limits, current.generation).result(60).limits


def under_way(engine: Engine, tokens: int = 10) -> list[Stream]:
    """Streams that have begun and have long to go."""
    streams = [send(engine, prompt, **LONG) for prompt in PROMPTS]
    for stream in streams:
        stream.wait_for(tokens)
    return streams


def finished(streams: list[Stream], library: Library, **sampling: object) -> Iterator[FinishedEvent]:
    """Every stream's end, after it has been compared with the plain loop."""
    for prompt, stream in zip(PROMPTS, streams, strict=True):
        event = stream.result()
        library.check(prompt, event, SamplingParams(**(LONG | sampling)))  # type: ignore[arg-type]
        yield event


def depths(event: FinishedEvent) -> list[int]:
    return [span.served.depth for span in event.spans]


def test_shrinking_goes_on_at_the_new_depth(tiny: Path, library: Library) -> None:
    with running(tiny, **DEPTHS) as engine:
        streams = under_way(engine)
        before = engine.telemetry().capacity
        change(engine, layer_budget=2)
        after = engine.telemetry().capacity
        fresh = send(engine, PROMPTS[0], **LONG).result()
        events = list(finished(streams, library))
    assert [depths(event) for event in events] == [[6, 2]] * len(events)
    assert all(event.spans[1].from_token >= 10 for event in events)
    assert depths(fresh) == [2]
    assert (before.layers_loaded, after.layers_loaded) == (6, 2)
    assert after.weight_bytes < before.weight_bytes


def test_shrinking_equals_a_fresh_run_of_the_shallow_model_on_the_same_tokens(tiny: Path) -> None:
    with running(tiny, **DEPTHS) as engine:
        stream = send(engine, PROMPTS[0], **LONG)
        stream.wait_for(10)
        change(engine, layer_budget=2)
        event = stream.result()
        cut = event.spans[1].from_token
        shallow = send(engine, PROMPTS[0] + event.output_ids[:cut], max_tokens=120 - cut, ignore_eos=True)
        assert shallow.result().output_ids == event.output_ids[cut:]


def test_growing_keeps_running_streams_at_their_depth(tiny: Path, library: Library) -> None:
    with running(tiny, layer_budget=2, **DEPTHS) as engine:
        streams = under_way(engine)
        change(engine, layer_budget=6)
        mixed = [send(engine, prompt, **LONG) for prompt in PROMPTS]
        assert [depths(event) for event in finished(streams, library)] == [[2]] * len(streams)
        assert [depths(event) for event in finished(mixed, library)] == [[6]] * len(streams)


def test_swapping_heads_keeps_the_cache(tiny: Path, heads: tuple[Bundle, Bundle], library: Library) -> None:
    one, two = heads
    served = {"exits_uri": one.uri, "exits_digest": one.digest}
    with running(tiny, layer_budget=4, **served, **DEPTHS) as engine:
        streams = under_way(engine)
        change(engine, exits_uri=two.uri, exits_digest=two.digest, candidate="second")
        events = list(finished(streams, library))
        assert engine.telemetry().preemptions == 0
    for event in events:
        assert [span.served.exits_digest for span in event.spans] == [one.digest, two.digest]
        assert [span.served.candidate for span in event.spans] == ["tiny", "second"]


def test_many_changes_under_one_sampled_stream(
    tiny: Path, heads: tuple[Bundle, Bundle], library: Library
) -> None:
    one, _ = heads
    sampling = {"temperature": 0.9, "top_k": 40, "seed": 5}
    with running(tiny, **DEPTHS) as engine:
        streams = [send(engine, prompt, **LONG, **sampling) for prompt in PROMPTS]
        for tokens, wanted in (
            (10, {"layer_budget": 4}),
            (40, {"exits_uri": one.uri}),
            (70, {"layer_budget": 2}),
        ):
            streams[-1].wait_for(tokens)
            change(engine, exits_digest="", **wanted)
        events = list(finished(streams, library, **sampling))
    assert depths(events[-1]) == [6, 4, 4, 2]


@pytest.fixture
def exact_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """memory_mib counts bytes: a MiB is too coarse for the tiny model's pool."""
    monkeypatch.setattr("helios_server.engine.serving.limit_bytes", lambda limits, _: limits.memory_mib)


def bytes_for(engine: Engine, layers: int, pages: int) -> int:
    """The limit at which `layers` layers and four rows leave a pool of `pages` pages."""
    facts = engine.serving.model.facts
    page = layers * facts.page_tokens * facts.kv_bytes_per_token_layer
    rows = 4 * facts.row_bytes + facts.step_tokens * facts.activation_bytes_per_token
    return facts.process_start_bytes + facts.fixed_bytes + layers * facts.layer_bytes + rows + pages * page


@pytest.mark.usefixtures("exact_limit")
def test_growing_with_a_full_pool_waits_for_pages_and_drops_nothing(tiny: Path, library: Library) -> None:
    with running(tiny, layer_budget=2, memory_mib=2**32, **DEPTHS) as engine:
        change(engine, memory_mib=bytes_for(engine, 6, 20), max_batch_size=4)
        roomy = engine.serving.pool.pages
        streams = [send(engine, prompt, **LONG) for prompt in PROMPTS[:4]]
        streams[-1].wait_for(60)
        used = engine.serving.scheduler.pages.used
        current = engine.serving.limits
        future = engine.set_limits(replace(current, generation=current.generation + 1, layer_budget=6))
        late = send(engine, PROMPTS[0], **LONG)
        future.result(60)
        assert used > 20
        assert engine.serving.pool.pages == engine.serving.scheduler.pages.capacity == 20 < roomy
        for prompt, stream in zip(PROMPTS, streams, strict=False):
            library.check(prompt, stream.result(), SamplingParams(**LONG))
            assert depths(stream.result()) == [2]
        library.check(PROMPTS[0], late.result(), SamplingParams(**LONG))
        assert engine.telemetry().requests_failed == 0
        change(engine, layer_budget=2)
        assert engine.serving.pool.pages == roomy


@pytest.mark.usefixtures("exact_limit")
def test_growing_is_refused_when_a_running_request_would_not_fit(tiny: Path, library: Library) -> None:
    with running(tiny, layer_budget=2, memory_mib=2**32, **DEPTHS) as engine:
        change(engine, memory_mib=bytes_for(engine, 6, 6))
        streams = under_way(engine)
        with pytest.raises(
            LimitsRefused, match=r"a request under way may need 184 tokens of KV, 6 layers leave"
        ):
            change(engine, layer_budget=6)
        assert engine.telemetry().refused is not None
        assert engine.serving.budget == 2
        list(finished(streams, library))
        change(engine, layer_budget=6)
        assert engine.telemetry().refused is None
        with pytest.raises(InvalidRequest, match="exceed the KV cache of"):
            send(engine, PROMPTS[0], **LONG)


@pytest.mark.usefixtures("exact_limit")
def test_a_request_as_large_as_is_told_is_taken_and_one_token_more_is_not(tiny: Path) -> None:
    """Where the context is the bound, and where the KV cache is, which a Grow makes smaller."""
    with running(tiny, layer_budget=2, memory_mib=2**32, **DEPTHS) as engine:
        assert taken_to_the_last_token(engine) == engine.info().max_context_tokens
        change(engine, memory_mib=bytes_for(engine, 6, 6))
        before = taken_to_the_last_token(engine)
        change(engine, layer_budget=6)
        after = taken_to_the_last_token(engine)
        assert after == engine.telemetry().capacity.kv_capacity_tokens + 1
        assert after < before


def taken_to_the_last_token(engine: Engine) -> int:
    """What is told, after it was tried."""
    most = engine.info().max_request_tokens
    with pytest.raises(InvalidRequest, match=f"Ask for at most {most - 20}"):
        send(engine, prompt_of(20), max_tokens=most - 19, ignore_eos=True)
    event = send(engine, prompt_of(20), max_tokens=most - 20, ignore_eos=True).result()
    assert len(event.output_ids) == most - 20
    return most


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layer_budget": 7}, LimitsRefused, "limits.layer_budget: 7 is above the model's 6 layers"),
        ({"layer_budget": 3}, LimitsRefused, "limits.layer_budget: 3 is no exit layer"),
        ({"exit_layers": (2, 9)}, LimitsRefused, r"limits.exit_layers: \[9\] are outside 1..6"),
        (
            {"memory_mib": 1},
            OutOfMemoryBudget,
            "one request of 64 tokens at 6 layers needs .* the limit is 1 MiB",
        ),
        ({"exits_uri": "builtin://none"}, BundleError, "no such built-in bundle"),
        ({"model_uri": "file:///nowhere"}, ModelNotFoundError, "no directory /nowhere"),
    ],
)
def test_a_refused_change_changes_nothing(
    tiny: Path, changes: dict[str, object], error: type[HeliosError], message: str
) -> None:
    with running(tiny, **DEPTHS) as engine:
        stream = send(engine, PROMPTS[0], **LONG)
        before = engine.serving.limits
        with pytest.raises(error, match=message):
            change(engine, **changes)
        refused = engine.telemetry().refused
        assert refused is not None
        assert refused.generation == 2
        assert engine.serving.limits == before
        assert len(stream.result().output_ids) == 120


def test_generations_must_rise(tiny: Path) -> None:
    with running(tiny, **DEPTHS) as engine:
        limits = engine.serving.limits
        with pytest.raises(StaleGeneration, match="7 is not the current 1"):
            engine.set_limits(replace(limits, generation=2), if_generation=7).result(30)
        with pytest.raises(StaleGeneration, match="1 is not above the current 1"):
            engine.set_limits(limits).result(30)


def test_batch_and_queue_change_at_once(tiny: Path) -> None:
    with running(tiny, **DEPTHS) as engine:
        change(engine, max_batch_size=2)
        streams = [send(engine, prompt, **LONG) for prompt in PROMPTS]
        for stream in streams:
            stream.result()
        telemetry = engine.telemetry()
    assert telemetry.batch_reached == telemetry.capacity.max_batch_size == 2


# -- another model, in place ---------------------------------------------------------------------------------


def test_a_model_with_the_same_tokenizer_takes_over_running_streams(
    tiny: Path, other: Path, library: Library
) -> None:
    with running(tiny, **DEPTHS) as engine:
        streams = under_way(engine)
        current, tokenizer = engine.serving.limits, engine.serving.model.tokenizer
        limits = replace(
            limits_for(other), generation=current.generation + 1, candidate="other", exit_layers=(2, 3)
        )
        future = engine.set_limits(limits)
        while not future.done():
            assert engine.telemetry().requests_failed == 0
        outcome = future.result()
        events = list(finished(streams, library))
        assert engine.info().total_layers == 4
        assert engine.serving.model.tokenizer._codec is tokenizer._codec  # two would be held for a while
    assert outcome.reprefilled == len(streams)
    for event in events:
        assert [span.served.candidate for span in event.spans] == ["tiny", "other"]
        assert depths(event) == [6, 4]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_serving(
    tiny: Path, library: Library, tmp_path: Path
) -> None:
    broken = make_checkpoint(tmp_path / "broken", layers=3, seed=9, shards=3)
    (broken / "model-00003-of-00003.safetensors").unlink()
    with running(tiny, **DEPTHS) as engine:
        streams = under_way(engine)
        with pytest.raises(HeliosError, match="model-00003-of-00003"):
            change(engine, model_uri=f"file://{broken}", model_revision="", exit_layers=())
        assert engine.info().total_layers == 6
        assert engine.failed is None
        list(finished(streams, library))
        assert engine.telemetry().requests_failed == 0


def test_a_model_with_another_tokenizer_waits_for_running_streams(
    tiny: Path, tmp_path: Path, library: Library
) -> None:
    stranger = make_checkpoint(tmp_path / "stranger", layers=3, seed=4)
    tokenizer = stranger / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|user|>", "<|human|>"))
    with running(tiny, **DEPTHS) as engine:
        streams = under_way(engine)
        limits = replace(limits_for(stranger), generation=2)
        future = engine.set_limits(limits)
        assert [depths(event) for event in finished(streams, library)] == [[6]] * len(streams)
        assert future.result(60).reprefilled == 0
        assert engine.info().total_layers == 3
        assert depths(send(engine, PROMPTS[0], **LONG).result()) == [3]


def test_a_change_ends_when_the_engine_stops(tiny: Path) -> None:
    with running(tiny, config=EngineConfig(dtype="float64", max_context=256), **DEPTHS) as engine:
        under_way(engine)
        blocked = engine.at_boundary(_never)
        time.sleep(0.01)
    with pytest.raises(HeliosError, match="was stopped"):
        blocked.result(10)


def _never() -> None:
    from helios_server.engine.tasks import NotYet

    raise NotYet
