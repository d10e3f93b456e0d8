"""The files of a model are replaced by others while it serves: nothing of them is ever read into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helios_server.engine import serving
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FailedEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import BundleError, HeliosError, OutOfMemoryBudget
from helios_server.exits.bundle import HeadBundle
from helios_server.models.checkpoint import Checkpoint
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.faults import LIBRARY, LONG, PROMPTS, Fault, under_way
from tests.engine.helpers import audit_of, limits_for, prompt_of, running, send
from tests.engine.test_audit import audits, direct, wait_for


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy, to be replaced."""
    return shutil.copytree(tiny, tmp_path / "model")


def overwrite(target: Path, source: Path) -> None:
    """In place, as `cp` does."""
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def rename_over(target: Path, source: Path) -> None:
    """Each file at once, as `mv` and `rsync` do."""
    for file in source.iterdir():
        new = target / f"{file.name}.new"
        shutil.copyfile(file, new)
        new.rename(target / file.name)


def keep_times(target: Path, source: Path) -> None:
    """In place, and the times are put back, as `cp -p` and `rsync -t` may leave them."""
    for file in source.iterdir():
        before = (target / file.name).stat()
        (target / file.name).write_bytes(file.read_bytes())
        os.utime(target / file.name, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Another model of the same shape."""
    return make_checkpoint(tmp_path / "alike", layers=6, seed=77)


@pytest.mark.parametrize("replace_files", [overwrite, rename_over, keep_times])
def test_a_grow_reads_no_other_models_layers(
    model: Path, alike: Path, replace_files: Callable[[Path, Path], None]
) -> None:
    with running(model, layer_budget=2, exit_layers=(2, 4)) as engine:
        first = send(engine, PROMPTS[0], **LONG).result()
        replace_files(model, alike)
        limits = replace(engine.serving.limits, generation=2, layer_budget=6)
        with pytest.raises(HeliosError, match="holds another model than the one that serves"):
            engine.set_limits(limits).result(60)
        assert send(engine, PROMPTS[0], **LONG).result().output_ids == first.output_ids
        assert engine.set_limits(replace(limits, layer_budget=2, max_batch_size=2)).result(60)


def test_a_grow_refuses_other_shapes_missing_files_and_halves(
    model: Path, other: Path, tmp_path: Path
) -> None:
    kept = shutil.copytree(model, tmp_path / "kept")
    weights = model / "model.safetensors"
    with running(model, layer_budget=2, exit_layers=(2, 4)) as engine:
        limits = replace(engine.serving.limits, layer_budget=6)

        def grow(generation: int) -> None:
            engine.set_limits(replace(limits, generation=generation)).result(60)

        for generation, spoil in enumerate(
            (
                lambda: overwrite(model, other),
                weights.unlink,
                lambda: weights.write_bytes((kept / weights.name).read_bytes()[:-1000]),
                lambda: (model / "config.json").write_text("{"),
            ),
            start=2,
        ):
            spoil()
            with pytest.raises(HeliosError, match="another model than the one that serves"):
                grow(generation)
            overwrite(model, kept)
        assert engine.telemetry().limits.generation == 1
        grow(9)  # its own files are back
        event = send(engine, PROMPTS[0], **LONG).result()
    with running(kept) as fresh:
        assert send(fresh, PROMPTS[0], **LONG).result().output_ids == event.output_ids


def test_the_same_model_laid_out_otherwise_is_the_same_model(model: Path) -> None:
    """Its fingerprint is the same, but its tensors lie in other files."""
    weights = model / "model.safetensors"
    with running(model, layer_budget=2, exit_layers=(2, 4)) as engine:
        tensors = load_file(weights)
        weights.unlink()
        halves = sorted(tensors)[::2], sorted(tensors)[1::2]
        for number, names in enumerate(halves, start=1):
            save_file({name: tensors[name] for name in names}, model / f"part-{number}.safetensors")
        weight_map = {
            name: f"part-{number}.safetensors" for number, half in enumerate(halves, 1) for name in half
        }
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        engine.set_limits(replace(engine.serving.limits, generation=2, layer_budget=6)).result(60)
        event = send(engine, PROMPTS[0], **LONG).result()
    LIBRARY.check(PROMPTS[0], event, SamplingParams(**LONG))


@pytest.mark.parametrize("reads", [0, 1, 3])
def test_files_replaced_while_layers_are_read_are_noticed_after(
    model: Path, alike: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    real, seen = Checkpoint.layer_tensors, list[int]()

    def replaced_behind(self: Checkpoint, layer: int) -> Any:
        if len(seen) == reads:
            rename_over(model, alike)
        seen.append(layer)
        return real(self, layer)

    with running(model, layer_budget=2, exit_layers=(2, 4)) as engine:
        first = send(engine, PROMPTS[0], **LONG).result()
        monkeypatch.setattr(Checkpoint, "layer_tensors", replaced_behind)
        with pytest.raises(HeliosError, match="another model than the one that serves"):
            engine.set_limits(replace(engine.serving.limits, generation=2, layer_budget=6)).result(60)
        assert send(engine, PROMPTS[0], **LONG).result().output_ids == first.output_ids


def test_a_model_that_changes_while_it_is_loaded_does_not_serve(
    model: Path, alike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Checkpoint.layer_tensors

    def replaced_behind(self: Checkpoint, layer: int) -> Any:
        tensors = real(self, layer)
        if layer == 5:
            rename_over(model, alike)
        return tensors

    monkeypatch.setattr(Checkpoint, "layer_tensors", replaced_behind)
    with pytest.raises(HeliosError, match="changed while they were read"), running(model):
        pass


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_going_back_to_other_files_is_refused(
    model: Path, other: Path, alike: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    if file == "tokenizer.json":
        tokenizer = alike / file
        tokenizer.write_text(tokenizer.read_text().replace("<|user|>", "<|human|>"))
    fault = Fault(MemoryError())
    fault.into(monkeypatch, serving, "load_heads")
    with running(model) as engine:
        streams = under_way(engine)
        shutil.copyfile(alike / file, model / file)
        fault.armed = True
        with pytest.raises(OutOfMemoryBudget):
            engine.set_limits(replace(limits_for(other), generation=2)).result(60)
        end = streams[0].end()
        assert isinstance(end, FailedEvent)
        what = "tokenizer" if file == "tokenizer.json" else "weights"
        assert f"holds other {what} than those that served" in str(end.error)
        assert engine.failed is not None


def test_heads_replaced_while_they_are_read_do_not_serve(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = random_bundle(tmp_path / "heads", tiny, (2, 4), 1)
    real = HeadBundle.tensors

    def replaced_before(self: HeadBundle, layer: int) -> Any:
        random_bundle(tmp_path / "heads", tiny, (2, 4), 2)
        return real(self, layer)

    monkeypatch.setattr(HeadBundle, "tensors", replaced_before)
    with running(tiny, layer_budget=2, exit_layers=(2, 4)) as engine:
        limits = replace(engine.serving.limits, generation=2, exits_uri=spec.uri, exits_digest=spec.digest)
        with pytest.raises(BundleError, match="changed while it was read"):
            engine.set_limits(limits).result(60)
        assert engine.info().exits_digest == ""


def test_audits_of_replaced_files_are_skipped_and_said_once(
    model: Path, alike: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = shutil.copytree(model, tmp_path / "kept")
    limits = {"layer_budget": 2, "exit_layers": (2, 4), "audit": audit_of(100)}
    with running(model, EngineConfig(dtype="float64", max_context=256), **limits) as engine:
        send(engine, prompt_of(30), max_tokens=2).result()
        audits(engine, 1)
        overwrite(model, alike)
        for number in range(1, 4):
            send(engine, prompt_of(30, number), max_tokens=2).result()
            wait_for(lambda number=number: engine.audits_skipped == number)  # type: ignore[misc]
        assert len(engine.telemetry().audits) == 1
        assert caplog.text.count("audits are skipped") == 1
        assert "another model than the one that serves" in caplog.text
        overwrite(model, kept)
        send(engine, prompt_of(40), max_tokens=2).result()
        rows = audits(engine, 2)
    for ordinal, length in ((1, 30), (5, 40)):
        expected = direct(kept, prompt_of(length), limits["audit"].bundles)  # type: ignore[attr-defined]
        assert rows[ordinal].full_millibits == expected.full_millibits


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), KeyError("x")])
def test_an_audit_that_cannot_read_fails_nothing_else(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fault = Fault(error)
    fault.into(monkeypatch, Checkpoint, "layer_tensors")
    with running(tiny, layer_budget=2, exit_layers=(2, 4), audit=audit_of(100)) as engine:
        streams = under_way(engine)
        fault.armed = True
        wait_for(lambda: len(engine.telemetry().audits) + engine.audits_skipped == len(PROMPTS))
        for prompt, stream in zip(PROMPTS, streams, strict=True):
            LIBRARY.check(prompt, stream.result(), SamplingParams(**LONG))
        assert fault.met == 1
        assert engine.audits_skipped >= 1
        assert engine.failed is None
