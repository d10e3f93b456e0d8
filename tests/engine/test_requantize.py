"""The same model in another precision, in place: no stream notices but by its spans; one model is held."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract.limits import Limits
from helios_contract.results import MemoryFacts
from helios_contract.serves import Precision
from helios_server.engine import requantize, serving
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig, LimitsOutcome
from helios_server.engine.request import FailedEvent, FinishedEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import BundleError, HeliosError, InvalidRequest, LimitsRefused, OutOfMemoryBudget
from helios_server.models import backbone as backbone_module
from helios_server.models.backbone import Backbone
from helios_server.models.block import DecoderLayer
from helios_server.models.checkpoint import Checkpoint

from tests.checkpoints import make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.helpers import Stream, limits_for, prompt_of, running, send
from tests.engine.natives import TORCH, computing_with, needs_kernels
from tests.engine.oracle import Library
from tests.native.libraries import names

PROMPTS = [prompt_of(9 + 5 * i, i) for i in range(20)]
LONG = {"max_tokens": 64, "ignore_eos": True}
DEPTHS = {"exit_layers": (2, 4)}
PUBLISHED, WEIGHTS, BOTH = Precision(), Precision("int8"), Precision("int8", "int8")
every_path = pytest.mark.parametrize("isa", [TORCH, *(name for name in names() if name != "none")])


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


# -- what streams see ----------------------------------------------------------------------------------------


@every_path
def test_twenty_streams_live_through_it_in_both_directions(tiny: Path, isa: str) -> None:
    turns = [PUBLISHED, BOTH, PUBLISHED] if isa == TORCH else [PUBLISHED, BOTH, Precision("int4"), PUBLISHED]
    _, *others = turns
    with computing_with(isa):
        with running(tiny, config_of(isa), **DEPTHS) as engine:
            assert engine.serving.weights.backbone.is_native == (isa != TORCH)
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


# -- what is refused, and when -------------------------------------------------------------------------------


@pytest.fixture
def exact_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """memory_mib counts bytes of the model alone: a MiB is too coarse for the tiny one's pool."""
    real = serving.measure

    def measured(*arguments: Any, **named: Any) -> MemoryFacts:
        return replace(real(*arguments, **named), process_start_bytes=0)

    monkeypatch.setattr(serving, "measure", measured)
    for module in (serving, requantize):
        monkeypatch.setattr(module, "limit_bytes", lambda limits, _: limits.memory_mib)


ROOMY = {"memory_mib": 2**32, "max_batch_size": 1, "tokens_per_request": 16}


def bytes_for(engine: Engine, pages: int) -> int:
    """The limit at which a row, in the precision that serves, leaves a pool of so many pages."""
    facts, layers = engine.serving.model.facts, engine.serving.budget
    page = layers * facts.page_tokens * facts.kv_bytes_per_token_layer
    steps = facts.row_bytes + facts.step_tokens * facts.activation_bytes_per_token
    return facts.fixed_bytes + layers * facts.layer_bytes + steps + pages * page


@needs_kernels
@pytest.mark.usefixtures("exact_limit")
def test_a_request_that_would_not_fit_refuses_it_before_anything_is_let_go(tiny: Path) -> None:
    """What a precision took when it served before is known."""
    with running(tiny, NATIVE, **ROOMY) as engine:
        limit = bytes_for(engine, 6)
        change(engine, BOTH, memory_mib=limit)
        assert engine.serving.pool.pages > 11
        stream, runner = send(engine, PROMPTS[19], **LONG), engine.serving.runner
        stream.wait_for(5)
        with pytest.raises(
            LimitsRefused, match=r"a request under way may need 167 tokens of KV, 6 layers leave 96"
        ):
            change(engine, PUBLISHED)
        assert engine.serving.runner is runner
        assert precisions(stream.result()) == [BOTH]
        refused = engine.telemetry().refused
        assert refused is not None
        assert refused.generation == 3
        assert engine.telemetry().preemptions == 0
        assert change(engine, PUBLISHED).capacity.kv_capacity_tokens == 96


@needs_kernels
@pytest.mark.usefixtures("exact_limit")
def test_a_precision_that_cannot_fit_is_refused_before_anything_is_let_go(tiny: Path) -> None:
    """It never served here; its weights take no less than their elements do."""
    with running(tiny, NATIVE, weight_dtype="int8", kv_cache_dtype="int8", **ROOMY) as engine:
        change(engine, memory_mib=bytes_for(engine, 11))
        stream, runner = send(engine, PROMPTS[19], **LONG), engine.serving.runner
        stream.wait_for(5)
        with pytest.raises(OutOfMemoryBudget, match="one request of 16 tokens at 6 layers needs"):
            change(engine, PUBLISHED)
        assert engine.serving.runner is runner
        assert precisions(stream.result()) == [BOTH]


@needs_kernels
@pytest.mark.usefixtures("exact_limit")
def test_what_is_found_not_to_fit_when_it_is_loaded_is_undone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tiny, NATIVE, **ROOMY) as engine:
        limit = bytes_for(engine, 6)
    monkeypatch.setattr(requantize, "_least", lambda *_: _NOTHING)
    with running(tiny, NATIVE, weight_dtype="int8", kv_cache_dtype="int8", **ROOMY) as engine:
        change(engine, memory_mib=limit)
        stream = send(engine, PROMPTS[19], **LONG)
        stream.wait_for(5)
        with pytest.raises(LimitsRefused, match="a request under way may need 167 tokens of KV, 6 layers"):
            change(engine, PUBLISHED)
        event = stream.result()
        assert precisions(event) == [BOTH]
        assert event.preemptions == 1
        assert engine.telemetry().capacity.kv_capacity_tokens > 167
        Library("float16").check(PROMPTS[19], event, SamplingParams(**LONG))  # type: ignore[arg-type]


_NOTHING = MemoryFacts(0, 0, 0, 1, 0, 1, 48, 16)


@needs_kernels
@pytest.mark.usefixtures("exact_limit")
def test_requests_that_come_meanwhile_are_held_to_what_will_be(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = list[str]()
    real = Backbone.load_layer
    with running(tiny, NATIVE, **ROOMY) as engine:
        limit = bytes_for(engine, 6)
        change(engine, BOTH)

        def asked(self: Backbone, index: int) -> Any:
            if not refused:
                with pytest.raises(InvalidRequest) as error:
                    send(engine, PROMPTS[19], **LONG)
                refused.append(str(error.value))
            return real(self, index)

        monkeypatch.setattr(Backbone, "load_layer", asked)
        change(engine, PUBLISHED, memory_mib=limit)
    assert "exceed the KV cache of 96 tokens" in refused[0] or "leaves no room in the KV" in refused[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kv_cache_dtype": "fp8"}, LimitsRefused, "limits.kv_cache_dtype: 'fp8' needs a CUDA .* has cpu"),
        ({"layer_budget": 7, "weight_dtype": "int8"}, LimitsRefused, "limits.layer_budget: 7 is above"),
        ({"layer_budget": 3, "kv_cache_dtype": "int8"}, LimitsRefused, "limits.layer_budget: 3 is no exit"),
        ({"memory_mib": 1, "weight_dtype": "int8"}, OutOfMemoryBudget, "the limit is 1 MiB"),
        ({"memory_mib": 1, "kv_cache_dtype": "int8"}, OutOfMemoryBudget, "the limit is 1 MiB"),
        ({"exits_uri": "builtin://none", "weight_dtype": "int8"}, BundleError, "no such built-in bundle"),
    ],
)  # fmt: skip
def test_wrong_limits_are_named_and_change_nothing(
    tiny: Path, changes: dict[str, Any], error: type[HeliosError], message: str
) -> None:
    with running(tiny, config_of(TORCH), **DEPTHS) as engine:
        stream, runner = send(engine, PROMPTS[0], **LONG), engine.serving.runner
        stream.wait_for(3)
        with pytest.raises(error, match=message):
            change(engine, **changes)
        assert engine.serving.runner is runner
        assert precisions(stream.result()) == [PUBLISHED]
        assert engine.telemetry().preemptions == 0


def test_a_start_with_a_precision_that_the_device_lacks_is_refused(tiny: Path) -> None:
    with pytest.raises(LimitsRefused, match=r"limits.kv_cache_dtype: 'fp8' needs a CUDA device"):
        Engine.start(config_of(TORCH), limits_for(tiny, kv_cache_dtype="fp8"))


def test_files_that_were_replaced_refuse_it_before_anything_is_let_go(tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    alike = make_checkpoint(tmp_path / "alike", layers=6, seed=77)
    with running(model, config_of(TORCH)) as engine:
        stream = send(engine, PROMPTS[0], **LONG)
        stream.wait_for(5)
        shutil.copyfile(alike / "model.safetensors", model / "model.safetensors")
        with pytest.raises(HeliosError, match="holds other weights than those that served"):
            change(engine, WEIGHTS)
        assert precisions(stream.result()) == [PUBLISHED]
        assert engine.failed is None
        change(engine, Precision("auto", "int8"))  # which reads none of them
        assert len(send(engine, PROMPTS[0], **LONG).result().output_ids) == LONG["max_tokens"]


def test_files_replaced_in_the_middle_fail_the_engine_for_all_to_see(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    alike = make_checkpoint(tmp_path / "alike", layers=6, seed=77)
    real = Backbone.load_layer

    def replaced_before(self: Backbone, index: int) -> Any:
        if index == 3:
            shutil.copyfile(alike / "model.safetensors", model / "model.safetensors")
        return real(self, index)

    with running(model, config_of(TORCH)) as engine:
        stream = send(engine, PROMPTS[0], **LONG)
        stream.wait_for(5)
        monkeypatch.setattr(Backbone, "load_layer", replaced_before)
        with pytest.raises(HeliosError, match="changed while they were read"):
            change(engine, WEIGHTS)
        end = stream.end()
        assert isinstance(end, FailedEvent)
        assert "what served cannot be loaded back" in str(end.error)
        assert engine.failed is not None


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
