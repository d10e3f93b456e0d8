"""The same model in another precision, in place: no stream notices but by its spans; one model is held."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract.serves import Precision
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError
from helios_server.models import backbone as backbone_module
from helios_server.models.backbone import Backbone
from helios_server.models.block import DecoderLayer
from helios_server.models.checkpoint import Checkpoint

from tests.engine.bundles import random_bundle
from tests.engine.helpers import prompt_of, running, send
from tests.engine.natives import TORCH, computing_with, needs_kernels
from tests.engine.oracle import Library
from tests.engine.requantizing import (
    BOTH,
    DEPTHS,
    LONG,
    NATIVE,
    PROMPTS,
    PUBLISHED,
    WEIGHTS,
    ask,
    change,
    config_of,
    finished,
    go_on,
    precisions,
    under_way,
    unhurried,
)
from tests.native.libraries import names

every_path = pytest.mark.parametrize("isa", [TORCH, *(name for name in names() if name != "none")])


# -- what streams see ----------------------------------------------------------------------------------------


@every_path
def test_twenty_streams_live_through_it_in_both_directions(tiny: Path, isa: str) -> None:
    turns = [PUBLISHED, BOTH, PUBLISHED] if isa == TORCH else [PUBLISHED, BOTH, Precision("int4"), PUBLISHED]
    _, *others = turns
    with computing_with(isa):
        with running(tiny, config_of(isa), **DEPTHS) as engine:
            assert engine.serving.weights.backbone.is_native == (isa != TORCH)
            with unhurried():
                streams = under_way(engine, count=8 if isa == TORCH else 20)
                for precision in others:
                    go_on(streams[-1])
                    outcome = change(engine, precision)
                    assert outcome.limits.precision == engine.serving.model.precision == precision
                    assert outcome.reprefilled > 0
                    assert outcome.seconds > 0
            told = engine.telemetry()
            events = list(finished(streams, Library(config_of(isa).dtype)))
        assert told.requests_failed == 0
    assert precisions(events[-1]) == turns
    assert all(set(precisions(event)) <= set(turns) for event in events)


@every_path
def test_shrink_grow_and_heads_in_int8_are_exact(tiny: Path, isa: str, tmp_path: Path) -> None:
    heads = random_bundle(tmp_path / "heads", tiny, (2, 4), 3)
    asked = [
        (prompt_of(9 + 5 * i, i), {"max_tokens": 30 if i else 200, "ignore_eos": True}) for i in range(3)
    ]
    with computing_with(isa):
        served = {"weight_dtype": "int8", "kv_cache_dtype": "int8"}
        with running(tiny, config_of(isa), **served, **DEPTHS) as engine:
            with unhurried():
                streams = [send(engine, prompt, **sampling) for prompt, sampling in asked]
                for stream in streams:
                    stream.wait_for(3)
                shrunk = ask(engine, layer_budget=4)
                exchanged = replace(
                    shrunk, generation=3, layer_budget=2, exits_uri=heads.uri, exits_digest=heads.digest
                )
                changes = [engine.set_limits(each) for each in (shrunk, exchanged)]
                assert [each.result(60).limits.layer_budget for each in changes] == [4, 2]
                change(engine, layer_budget=6)
            late = [send(engine, prompt, **sampling) for prompt, sampling in asked]
            events = [stream.result() for stream in (*streams, *late)]
            assert engine.telemetry().preemptions == 0
        library = Library(config_of(isa).dtype, {heads.digest: heads.uri})
        for (prompt, sampling), event in zip((*asked, *asked), events, strict=True):
            library.check(prompt, event, SamplingParams(**sampling))  # type: ignore[arg-type]
    assert [span.served.depth for span in events[0].spans] == [6, 4, 2]
    assert [span.served.depth for span in events[-1].spans] == [6]
    assert {precision for event in events for precision in precisions(event)} == {BOTH}


def test_budget_batch_and_heads_change_along_with_it(tiny: Path, tmp_path: Path) -> None:
    heads = random_bundle(tmp_path / "heads", tiny, (2, 4), 3)
    library = Library("float32", {heads.digest: heads.uri})
    with running(tiny, config_of(TORCH), layer_budget=2, **DEPTHS) as engine:
        with unhurried():
            streams = under_way(engine, count=6)
            bundle = {"exits_uri": heads.uri, "exits_digest": heads.digest}
            outcome = change(engine, BOTH, layer_budget=4, max_batch_size=5, **bundle)
            assert (outcome.capacity.layers_loaded, outcome.capacity.max_batch_size) == (4, 5)
            go_on(streams[-1])
            change(engine, Precision("int8"), layer_budget=6, max_batch_size=0)
        events = list(finished(streams, library))
        info = engine.info()
    assert (info.weight_dtype, info.kv_cache_dtype, info.layer_budget) == ("int8", "auto", 6)
    spans = events[-1].spans
    assert [(span.served.depth, span.served.precision) for span in spans] == [
        (2, PUBLISHED),
        (4, BOTH),
        (6, WEIGHTS),
    ]
    assert [span.served.exits_digest for span in spans] == ["", heads.digest, heads.digest]


def test_a_request_keeps_the_depth_that_it_asked_for(tiny: Path) -> None:
    with running(tiny, config_of(TORCH), **DEPTHS) as engine:
        with unhurried():
            stream = send(engine, PROMPTS[3], depth=2, **LONG)
            stream.wait_for(5)
            change(engine, BOTH)
        event = stream.result()
    assert [span.served.depth for span in event.spans] == [2, 2]
    Library("float32").check(PROMPTS[3], event, SamplingParams(**LONG))  # type: ignore[arg-type]


def test_what_was_computed_in_one_precision_is_not_found_in_another(tiny: Path) -> None:
    with running(tiny, config_of(TORCH)) as engine:
        assert send(engine, PROMPTS[19], max_tokens=2).result().prefix_hits == 0
        assert send(engine, PROMPTS[19], max_tokens=2).result().prefix_hits > 0
        for precision in (Precision("auto", "int8"), BOTH, PUBLISHED):
            change(engine, precision)
            assert send(engine, PROMPTS[19], max_tokens=2).result().prefix_hits == 0


@needs_kernels
@pytest.mark.parametrize("precision", [PUBLISHED, WEIGHTS])
def test_keys_and_values_alone_change_without_reading(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    read = list[str]()
    real = Checkpoint.tensor

    def noted(self: Checkpoint, name: str, *rest: Any) -> torch.Tensor:
        read.append(name)
        return real(self, name, *rest)

    served = {"weight_dtype": precision.weight_dtype}
    with running(tiny, NATIVE, **served, **DEPTHS) as engine:
        with unhurried():
            streams, before = under_way(engine, count=6), engine.serving.weights.backbone
            facts = engine.serving.model.facts
            monkeypatch.setattr(Checkpoint, "tensor", noted)
            change(engine, replace(precision, kv_cache_dtype="int8"))
            assert not read
            after, held = engine.serving.weights.backbone, engine.serving.model.facts
            assert after.head is before.head
            element, unit = (
                2 * 2 * 16 * 2,
                2 * 2 * 4,
            )  # of float16: two sides, two heads of 16; of int8: a float32 each
            assert facts.kv_bytes_per_token_layer == element
            assert held.kv_bytes_per_token_layer == element // 2 + unit == after.layout.page_bytes // 16
            assert engine.serving.capacity.kv_bytes == engine.serving.pool.nbytes
            go_on(streams[-1])
            change(engine, precision)
        assert not read
        assert engine.serving.model.facts == facts
        events = list(finished(streams, Library("float16")))
    assert [each.kv_cache_dtype for each in precisions(events[-1])] == ["auto", "int8", "auto"]


# -- what is held --------------------------------------------------------------------------------------------


class _Counted(DecoderLayer):
    """With a place for weak references, and so for counting those that live."""


@pytest.mark.parametrize("breaks_at", [None, 4])
def test_one_model_and_one_layer_are_held_and_only_what_is_gone_is_read_again(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, breaks_at: int | None
) -> None:
    alive, most = weakref.WeakSet[_Counted](), list[int]()
    read = list[tuple[str, int]]()
    real = Backbone.load_layer

    def counted(self: Backbone, index: int) -> Any:
        read.append((self.precision.weight_dtype, index))
        if self.precision == WEIGHTS and index == breaks_at:
            raise OSError("broken on purpose")
        layer = real(self, index)
        alive.add(layer)  # type: ignore[arg-type]
        most.append(len(alive))
        return layer

    monkeypatch.setattr(backbone_module, "DecoderLayer", _Counted)
    monkeypatch.setattr(Backbone, "load_layer", counted)
    with running(tiny, config_of(TORCH)) as engine:
        with unhurried():
            stream = send(engine, PROMPTS[0], **LONG)
            stream.wait_for(3)
            read.clear()
            if breaks_at is None:
                change(engine, WEIGHTS)
                assert read == [("int8", index) for index in range(6)]
            else:
                with pytest.raises(HeliosError, match="broken on purpose"):
                    change(engine, WEIGHTS)
                again = [index for precision, index in read if precision == "auto"]
                assert again == list(range(breaks_at))  # the rest was still there
        event = stream.result()
        assert len(alive) == 6
    assert max(most) == 7
    Library("float32").check(PROMPTS[0], event, SamplingParams(**LONG))  # type: ignore[arg-type]
    assert precisions(event) == ([PUBLISHED, WEIGHTS] if breaks_at is None else [PUBLISHED])
