"""Exit mode `token`: each token leaves at the first exit that is confident, as a plain reference says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from helios_contract.limits import Audit, Limits
from helios_server.engine.engine import Engine
from helios_server.engine.heads import Heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig, check
from helios_server.engine.offline import NEAR_TIE, Shelf, generate
from helios_server.engine.request import Event, GenerationRequest, Served, TokensEvent
from helios_server.engine.sampler import Choice
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.engine.token_exit import TokenRunner
from helios_server.errors import HeliosError, InvalidRequest, LimitsRefused
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint

from tests.checkpoints import FAMILIES, make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.conftest import LAYERS
from tests.engine.helpers import Stream, limits_for, prompt_of, running, send
from tests.engine.oracle import Library
from tests.engine.token_reference import Reference

EXITS = (2, 4)
MIDDLE, MIXED = 0.8, prompt_of(20, 3)
"""With them tokens of the tiny model leave at each exit, and at none."""
CONFIG = EngineConfig(dtype="float64", max_context=256, prefix_caching=False)
LASTING = SamplingParams(max_tokens=80, ignore_eos=True)
LONG: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True}


@contextmanager
def tokens_leave(path: Path, threshold: float, **changes: Any) -> Iterator[Engine]:
    """An engine whose tokens leave one by one."""
    given = {"exit_layers": EXITS, "max_batch_size": 8, **changes}
    with running(path, CONFIG, exit_mode="token", exit_threshold=threshold, **given) as engine:
        yield engine


def told(stream: Stream) -> list[tuple[int, int, float]]:
    """Of every token: id, depth, confidence."""
    stream.result()
    events = [event for event in stream.events if isinstance(event, TokensEvent)]
    return [(event.token_ids[0], event.depth, event.confidences[0]) for event in events]


def alike(found: list[tuple[int, int, float]], wanted: list[tuple[int, int, float]]) -> None:
    """The same tokens from the same depths, as sure of them but for the order of sums, which a norm may round
    to float32 either way."""
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert [each[2] for each in found] == pytest.approx([each[2] for each in wanted], abs=1e-6)


def depths(stream: Stream) -> list[int]:
    return [depth for _, depth, _ in told(stream)]


def _middle(reference: Reference, prompt: tuple[int, ...]) -> float:
    """A threshold that some tokens of an answer reach at the first exit, and some do not."""
    return round(median(reference.answer(prompt, 12, EXITS, 0).confidences), 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_leave_as_a_plain_loop_over_layers_says(family: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "model", family, layers=5, seed=3)
    reference, prompts = Reference(path), [prompt_of(length, length) for length in (1, 5, 10)]
    threshold = _middle(reference, prompts[2])
    seen = set[int]()
    with tokens_leave(path, threshold) as engine:
        streams = [send(engine, prompt, max_tokens=12, ignore_eos=True) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            wanted = reference.answer(prompt, 12, EXITS, threshold)
            alike(told(stream), list(zip(wanted.ids, wanted.depths, wanted.confidences, strict=True)))
            seen.update(wanted.depths)
    assert len(seen) > 1, "the threshold tells no exits apart"


def test_keys_and_values_of_skipped_layers_are_the_references(tiny: Path) -> None:
    prompt, tokens = MIXED, 20
    wanted = Reference(tiny).answer(prompt, tokens, EXITS, MIDDLE)
    assert set(wanted.depths) == {*EXITS, LAYERS}
    backbone = Backbone.load(Checkpoint.open(tiny), LAYERS, dtype="float64", native=False)
    pool = KvPool(backbone.config, backbone.numerics, LAYERS, pages=3, page_tokens=16)
    runner = TokenRunner(backbone, Heads(backbone, ()), pool, "", (*EXITS, LAYERS), MIDDLE)
    sequence = Sequence("alone", prompt, SamplingParams(), tokens)
    sequence.admit(LAYERS)
    sequence.pages = [2, 0, 1]
    while len(sequence.output_ids) < tokens:
        row = Row(sequence, sequence.computed, sequence.pending, samples=True)
        result = runner.run(StepPlan((row,)))
        choice = result.outcomes[sequence]
        assert isinstance(choice, Choice)
        sequence.advance(row.count)
        sequence.append(choice.token_id, Served("", "", "", "", "", result.depth_of(sequence)))
    places = torch.tensor([sequence.pages[at // 16] * 16 + at % 16 for at in range(sequence.computed)])
    for layer in range(LAYERS):
        keys, values = pool.slab(layer)[:3].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, places]
        torch.testing.assert_close(keys, wanted.keys[layer], rtol=0, atol=1e-9)
        torch.testing.assert_close(values, wanted.values[layer], rtol=0, atol=1e-9)


def test_above_one_every_token_is_that_of_full_depth_bit_for_bit(tiny: Path) -> None:
    asked = [
        (prompt_of(40), {"logprobs": True}),
        (prompt_of(3, 1), {"logprobs": True, "temperature": 0.8, "seed": 3}),
        (prompt_of(200, 2), {"logprobs": True, "repetition_penalty": 1.2}),
    ]

    def all_of(engine: Engine) -> list[list[tuple[Any, ...]]]:
        streams = [send(engine, prompt, **LONG, **sampling) for prompt, sampling in asked]
        for stream in streams:
            stream.result()
        return [
            [
                (event.token_ids, event.logprobs, event.confidences, event.depth)
                for event in stream.events
                if isinstance(event, TokensEvent)
            ]
            for stream in streams
        ]

    with running(tiny, CONFIG, max_batch_size=8) as whole:
        wanted = all_of(whole)
    with tokens_leave(tiny, 1.000001) as engine:
        assert all_of(engine) == wanted


@pytest.mark.parametrize("prompt", [prompt_of(1), prompt_of(130)], ids=len)
def test_at_zero_every_token_leaves_at_the_first_exit(tiny: Path, prompt: tuple[int, ...]) -> None:
    with tokens_leave(tiny, 0.0) as engine:
        stream = send(engine, prompt, **LONG)
        assert depths(stream) == [EXITS[0]] * 20
        event = stream.result()
        assert (event.mean_layers, len(event.spans)) == (EXITS[0], 1)
        assert not engine.telemetry().steps, "a step of many depths tells of none"


def test_a_row_leaves_alone_as_in_company(tiny: Path) -> None:
    prompts = [prompt_of(length, length) for length in (1, 7, 16, 33, 50, 129, 140, 200)]
    with tokens_leave(tiny, MIDDLE) as engine:
        together = [send(engine, prompt, **LONG) for prompt in prompts]
        crowd = [told(stream) for stream in together]
        assert engine.telemetry().batch_reached == 8
        for prompt, wanted in zip(prompts, crowd, strict=True):
            alike(told(send(engine, prompt, **LONG)), wanted)
        assert {depth for found in crowd for _, depth, _ in found} == {*EXITS, LAYERS}


class Meanwhile(Stream):
    """Acts once so many tokens have come, and lets the engine wait a little for what that leads to."""

    def __init__(self, engine: Engine, tokens: int, act: Callable[[], Future[Any]]) -> None:
        super().__init__(f"meanwhile-{tokens}")
        self._tokens, self._act, self.done = tokens, act, Future[Any]()
        engine.submit(GenerationRequest(self.request_id, MIXED, LASTING), self)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if len(self.tokens) == self._tokens:
            self.done = self._act()
        elif len(self.tokens) > self._tokens:
            wait([self.done], 0.1)  # the engine's own thread: the act needs a step's end


def test_a_row_that_had_to_wait_goes_on_as_it_began(tiny: Path) -> None:
    """What it had come to is computed again, each token as deep as before."""
    with tokens_leave(tiny, MIDDLE) as engine:
        whole = told(send(engine, MIXED, max_tokens=80, ignore_eos=True))
        preempt = engine.serving.scheduler.preempt_all
        for tokens in (1, 18):
            stream = Meanwhile(engine, tokens, lambda: engine.at_boundary(preempt))
            alike(told(stream), whole)
            assert stream.result().preemptions == 1
        assert {depth for _, depth, _ in whole[:18]} == {*EXITS, LAYERS}


def test_the_plain_loop_follows_what_spans_tell(tiny: Path, tmp_path: Path) -> None:
    heads = random_bundle(tmp_path / "heads", tiny, EXITS, seed=5)
    library = Library("float64", {heads.digest: heads.uri})
    with tokens_leave(tiny, MIDDLE, exits_uri=heads.uri) as engine:
        for sampling in (SamplingParams(**LONG), SamplingParams(**LONG, temperature=0.9, seed=7)):
            stream = Stream(f"asked-{sampling.temperature}")
            engine.submit(GenerationRequest(stream.request_id, prompt_of(30), sampling), stream)
            event = stream.result()
            assert {span.served.exit_mode for span in event.spans} == {"token"}
            assert len({span.served.depth for span in event.spans}) > 1
            library.check(prompt_of(30), event, sampling)


def test_the_plain_loop_attends_to_what_skipped_layers_hold(tiny: Path) -> None:
    """Followed as if the whole sequence had run at each depth, its logits are others."""
    with tokens_leave(tiny, MIDDLE) as engine:
        event = send(engine, MIXED, **LONG).result()
    asked = event.request_id, MIXED, SamplingParams(**LONG)
    shelf, spans = Shelf({}, "float64"), event.spans
    followed = generate(shelf, *asked, spans, 20)
    assert followed.token_ids == event.output_ids
    whole = [replace(span, served=replace(span.served, exit_mode="sequence")) for span in spans]
    other = generate(shelf, *asked, whole, 20, forced=event.output_ids)
    assert max(abs(a - b) for a, b in zip(other.margins, followed.margins, strict=True)) > NEAR_TIE


def test_it_is_torch_that_computes(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "model", layers=3, dtype=torch.bfloat16)
    config = replace(CONFIG, dtype="bfloat16")
    with running(
        path, config, exit_mode="token", exit_threshold=0.5, exit_layers=(1,), max_batch_size=2
    ) as engine:
        assert not engine.serving.weights.backbone.is_native
        assert len(told(send(engine, prompt_of(9), **LONG))) == 20


# -- what it cannot have beside it


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_batch_size": 9}, "max_batch_size: is 9, with exit_mode 'token'; Give 1 to 8"),
        ({"max_batch_size": 0}, "max_batch_size: is 0, what fits, with exit_mode 'token'; Give 1 to 8"),
        ({"audit": Audit(percent=1)}, "audit.percent: is 1, with exit_mode 'token'"),
        ({"weight_dtype": "int8"}, "weight_dtype: is 'int8', with exit_mode 'token'; Use 'auto'"),
        ({"weight_dtype": "int4"}, "weight_dtype: is 'int4', with exit_mode 'token'; Use 'auto'"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype: is 'int8', with exit_mode 'token'; Use 'auto'"),
        ({"exit_threshold": -0.1}, "exit_threshold: is -0.1; Give 0 to 2"),
        ({"exit_threshold": 2.1}, "exit_threshold: is 2.1; Give 0 to 2"),
        ({"exit_threshold": float("nan")}, "exit_threshold: is nan; Give 0 to 2"),
        ({"exit_threshold": float("inf")}, "exit_threshold: is inf; Give 0 to 2"),
        ({"exit_mode": "tokens"}, "exit_mode: 'tokens' is not something that this release does"),
        ({"exit_mode": "sequence"}, "exit_threshold: is 0.5, with exit_mode 'sequence'"),
    ],
)
def test_limits_that_it_refuses(changes: dict[str, Any], problem: str) -> None:
    good = limits_for(Path("/m"), exit_mode="token", exit_threshold=0.5, max_batch_size=8, exit_layers=EXITS)
    check(good)
    with pytest.raises(LimitsRefused) as refused:
        check(replace(good, **changes))
    assert str(refused.value).startswith(f"limits.{problem}")


@pytest.mark.parametrize(
    ("config", "changes", "problem"),
    [
        ({"prefix_caching": True}, {}, "prefix-caching: is on: in exit mode 'token'"),
        ({}, {"layer_budget": 4}, "limits.layer_budget: is 4, with exit_mode 'token'; Give 0 or 6"),
        ({}, {"exit_layers": ()}, "limits.exit_layers: names no exit below full depth"),
        ({}, {"exit_layers": (6,)}, "limits.exit_layers: names no exit below full depth"),
    ],
)
def test_a_start_that_it_refuses(
    tiny: Path, config: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    given = {"exit_mode": "token", "exit_layers": EXITS, "max_batch_size": 8, **changes}
    with pytest.raises(HeliosError) as refused, running(tiny, replace(CONFIG, **config), **given):
        pass
    assert str(refused.value).startswith(problem)


def test_changes_that_it_refuses_change_nothing(tiny: Path, other: Path) -> None:
    def refused(engine: Engine, **changes: Any) -> str:
        current = engine.serving.limits
        with pytest.raises(HeliosError) as error:
            engine.set_limits(replace(current, generation=2, **changes)).result()
        assert engine.serving.limits == current
        return error.value.field

    with tokens_leave(tiny, MIDDLE) as engine:
        assert refused(engine, exit_mode="sequence", exit_threshold=0.0) == "limits.exit_mode"
        assert refused(engine, layer_budget=4) == "limits.layer_budget"
        assert refused(engine, exit_layers=()) == "limits.exit_layers"
        assert refused(engine, model_uri=f"file://{other}", model_revision="") == "limits.model_uri"
        assert len(told(send(engine, MIXED, **LONG))) == 20
    with running(tiny, CONFIG) as engine:
        mode = {"exit_mode": "token", "max_batch_size": 8, "exit_layers": EXITS}
        assert refused(engine, **mode) == "limits.exit_mode"


def test_other_exits_and_heads_hold_from_the_next_token_on(tiny: Path, tmp_path: Path) -> None:
    """Also for a row that has to wait then: what it had come to left at exits that are none any more."""
    heads = random_bundle(tmp_path / "heads", tiny, (1, 3), seed=5)
    with tokens_leave(tiny, MIDDLE) as engine:
        others = {"exit_threshold": 0.0, "exit_layers": (1, 3), "exits_uri": heads.uri}
        changed = replace(engine.serving.limits, generation=3, **others)

        def change() -> Future[Any]:
            future = engine.set_limits(changed)
            future.add_done_callback(lambda _: engine.at_boundary(engine.serving.scheduler.preempt_all))
            return future

        stream = Meanwhile(engine, 20, change)
        event = stream.result()
        assert event.preemptions == 1
        assert set(depths(stream)) == {1, *EXITS, LAYERS}
        Library("float64", {heads.digest: heads.uri}).check(MIXED, event, LASTING)


def test_a_request_for_a_depth_is_refused(tiny: Path) -> None:
    with tokens_leave(tiny, 0.5) as engine:
        with pytest.raises(InvalidRequest, match=r"exit_policy.layer_budget: 2 is asked for"):
            send(engine, prompt_of(3), depth=2)
        assert send(engine, prompt_of(3), **LONG).result().output_ids


def test_limits_and_telemetry_name_it(tiny: Path) -> None:
    with tokens_leave(tiny, 0.25) as engine:
        told_of: Limits = engine.telemetry().limits
        assert (told_of.exit_mode, told_of.exit_threshold) == ("token", 0.25)
        assert engine.telemetry().capacity.layers_loaded == LAYERS
