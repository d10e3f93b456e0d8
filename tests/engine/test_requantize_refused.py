"""Another precision that cannot be had: what is refused, and when; what is undone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helios_contract.results import MemoryFacts
from helios_contract.serves import Precision
from helios_server.engine import requantize, serving
from helios_server.engine.engine import Engine
from helios_server.engine.request import FailedEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import BundleError, HeliosError, InvalidRequest, LimitsRefused, OutOfMemoryBudget
from helios_server.models.backbone import Backbone

from tests.checkpoints import make_checkpoint
from tests.engine.helpers import limits_for, running, send
from tests.engine.natives import TORCH, needs_kernels
from tests.engine.oracle import Library
from tests.engine.requantizing import (
    BOTH,
    DEPTHS,
    LONG,
    NATIVE,
    PROMPTS,
    PUBLISHED,
    WEIGHTS,
    change,
    config_of,
    precisions,
    unhurried,
)


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
        with unhurried():
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
        with unhurried():
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
        with unhurried():
            stream = send(engine, PROMPTS[19], **LONG)
            stream.wait_for(5)
            with pytest.raises(LimitsRefused, match="a request under way may need 167 tokens of KV, 6"):
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
        with unhurried():
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
        with unhurried():
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
        with unhurried():
            stream = send(engine, PROMPTS[0], **LONG)
            stream.wait_for(5)
            monkeypatch.setattr(Backbone, "load_layer", replaced_before)
            with pytest.raises(HeliosError, match="changed while they were read"):
                change(engine, WEIGHTS)
        end = stream.end()
        assert isinstance(end, FailedEvent)
        assert "what served cannot be loaded back" in str(end.error)
        assert engine.failed is not None
