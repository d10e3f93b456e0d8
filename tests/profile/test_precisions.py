"""Several precisions in one run: what is lossless is found lossless, what is not is told, and the document
fits where its rows can."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract import results
from helios_contract.results import (
    CandidateQuality,
    EnergyCost,
    EnergyPoint,
    ExitQuality,
    HeadCost,
    MemoryFacts,
    Quality,
    StepTimeFit,
    Timing,
    TimingPoint,
    Timings,
)
from helios_contract.serves import PRECISIONS, REFERENCE, Precision
from helios_server.errors import InvalidRequest, OutOfMemoryBudget
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.shapes import shape_of
from helios_server.planning.shape import facts_of
from helios_server.profile import main, step_bench, timing
from helios_server.profile.document import LIMIT_BYTES, encode, fitted
from helios_server.profile.extent import Outline
from helios_server.profile.sweep import EFFORTS, Effort, sweep
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS, noise_bundle

INT8, BOTH = Precision("int8", "auto"), Precision("int8", "int8")


def run(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    """Exit status and the document, read."""
    file = tmp_path / "result.json"
    code = main([*arguments, "--result", str(file), "--output", "json"])
    return code, results.from_json(file.read_text())


def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(TEXTS))
    return str(file)


def in_whole_units(directory: Path, layers: int = 4) -> Path:
    """A checkpoint whose matrices int8 holds without loss: each weight a whole number of its row's unit."""
    make_checkpoint(directory, layers=layers)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for tensor in tensors.values():
        if tensor.ndim == 2:
            unit = 2.0 ** torch.round(torch.log2(tensor.abs().amax(1, keepdim=True) / 127))
            tensor.copy_((tensor / unit).round().clamp(-126, 126) * unit)
            tensor[:, :1] = 127 * unit
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


# -- quality -------------------------------------------------------------------------------------------------


def quality(tmp_path: Path, model: Path, precisions: str, *more: str) -> Quality:
    code, document = run(
        tmp_path, "--kind", "quality", "--model", f"file://{model}", "--exit-layers", "2",
        "--dtype", "float32", "--prompts-file", prompts(tmp_path), "--precisions", precisions, *more,
    )  # fmt: skip
    assert code == 0
    assert isinstance(document, Quality)
    return document


def test_weights_that_int8_holds_are_scored_without_loss(tmp_path: Path) -> None:
    document = quality(tmp_path, in_whole_units(tmp_path / "model"), "auto/auto,int8/auto,int8/int8")
    reference, weights, both = document.rows
    assert [(row.weight_dtype, row.kv_cache_dtype) for row in document.rows] == [
        ("auto", "auto"), ("int8", "auto"), ("int8", "int8"),
    ]  # fmt: skip
    for as_published, lossless in zip(reference.exits, weights.exits, strict=True):
        assert lossless.prompt_millibits == as_published.prompt_millibits
        assert lossless.agreement_percent == as_published.agreement_percent
    assert weights.exits[-1].agreement_percent == 100
    assert both.exits[-1].prompt_millibits != reference.exits[-1].prompt_millibits


def test_agreement_is_with_full_depth_as_published(tmp_path: Path) -> None:
    """At full depth a coarse precision differs from it, whatever it agrees with itself."""
    model = make_checkpoint(tmp_path / "model", layers=4, seed=3)
    reference, coarse = quality(tmp_path, model, "auto/auto,int4/int8").rows
    assert reference.exits[-1].agreement_percent == 100
    assert reference.exits[-1].ece_milli == 0 < coarse.exits[-1].ece_milli
    assert 50 < coarse.exits[-1].agreement_percent < 100
    shares = sum(exit_.first_agrees_percent for exit_ in coarse.exits)
    assert shares < 100


def test_the_reference_is_scored_though_it_was_not_asked_for(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    alone = quality(tmp_path, model, "int8/auto")
    assert (
        alone
        == quality(tmp_path, model, "auto/auto,int8/auto")
        == quality(tmp_path, model, "int8/auto,auto/auto")
    )
    assert alone.rows[:1] == quality(tmp_path, model, "auto/auto").rows


def test_every_candidate_has_a_row_in_every_precision(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    heads = noise_bundle(tmp_path / "heads", model, (2, 3))
    arguments = (
        "--exits",
        f"file://{heads}",
        "--exits",
        f"file://{noise_bundle(tmp_path / 'b', model, (2,))}",
    )
    document = quality(tmp_path, model, "auto/auto,int8/int8", *arguments)
    assert len(document.rows) == len({(row.candidate, row.weight_dtype) for row in document.rows}) == 4
    assert len({row.exits[-1].millibits for row in document.rows}) == 2  # full depth knows no heads


# -- timing --------------------------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))
    monkeypatch.setattr("helios_server.profile.energy._BUSY_SECONDS", 0.0)
    monkeypatch.setattr("helios_server.profile.energy._IDLE_SECONDS", 0.01)


def test_each_precision_is_timed_and_measured_in_memory(tmp_path: Path, brief: None) -> None:
    model = make_checkpoint(tmp_path / "model")
    arguments = ("--kind", "timing", "--model", f"file://{model}", "--dtype", "float16", "--watts", "5")
    code, document = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/auto,int8/int8")
    assert code == 0
    assert isinstance(document, Timings)
    assert len(encode(document)) <= LIMIT_BYTES
    found = {Precision(one.weight_dtype, one.kv_cache_dtype): one for one in document.timings}
    assert tuple(found) == (REFERENCE, INT8, BOTH)
    shape = shape_of(Checkpoint.open(model).config)
    for precision, one in found.items():
        assert one.fit is not None
        assert one.memory is not None
        assert one.energy is not None
        planned = facts_of(shape, precision)
        assert one.memory.kv_bytes_per_token_layer == pytest.approx(
            planned.kv_bytes_per_token_layer, rel=0.01
        )
        assert one.memory.layer_bytes == pytest.approx(planned.layer_bytes, abs=4 * 4096 + 200)
    assert memory(found[INT8]).layer_bytes < memory(found[REFERENCE]).layer_bytes
    assert memory(found[BOTH]).kv_bytes_per_token_layer < memory(found[INT8]).kv_bytes_per_token_layer


def memory(timing: Timing) -> MemoryFacts:
    assert timing.memory is not None
    return timing.memory


def test_one_precision_is_a_timing_by_itself(tmp_path: Path, brief: None) -> None:
    model = make_checkpoint(tmp_path / "model")
    arguments = ("--kind", "timing", "--model", f"file://{model}", "--dtype", "float16")
    _, document = run(tmp_path, *arguments, "--precisions", "int8/int8")
    assert isinstance(document, Timing)
    assert (document.weight_dtype, document.kv_cache_dtype) == ("int8", "int8")
    _, document = run(tmp_path, *arguments)
    assert isinstance(document, Timing)
    assert "weightDtype" not in json.loads((tmp_path / "result.json").read_text())


@pytest.mark.parametrize("how", ["in turns", "one by one"])
def test_of_several_those_that_do_not_fit_are_left_out(
    how: str,
    tmp_path: Path,
    brief: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    outline_of = timing.outline_of

    def too_large(candidates: Any, settings: Any, precision: Precision) -> Outline:
        if precision in scarce:
            raise OutOfMemoryBudget("memory-mib", "timing one layer takes 9 MiB, 8 are given", "Raise it")
        return outline_of(candidates, settings, precision)

    monkeypatch.setattr(timing, "outline_of", too_large)
    if how == "one by one":
        monkeypatch.setattr(timing, "together", lambda *_: None)
    arguments = ("--kind", "timing", "--model", f"file://{model}", "--dtype", "float16")
    scarce = {REFERENCE}
    code, document = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/auto,int8/int8")
    assert code == 0
    assert [(one.weight_dtype, one.kv_cache_dtype) for one in document.timings] == [
        ("int8", "auto"),
        ("int8", "int8"),
    ]
    assert "auto/auto is left out: memory-mib: timing one layer takes 9 MiB" in capsys.readouterr().err
    scarce = {REFERENCE, INT8}
    code, document = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/auto")
    assert (code, document.field) == (2, "memory-mib")


def test_precisions_are_timed_in_turns_with_all_of_them_in_memory(
    tmp_path: Path, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, the machine would be another by then."""
    model = make_checkpoint(tmp_path / "model", layers=2)
    groups = list[list[int]]()

    def counted(each: Any, *rest: Any, **more: Any) -> Any:
        groups.append([len(steps) for steps in each])
        assert backbones() == before + len(each)
        return sweep(each, *rest, **more)

    monkeypatch.setattr(timing, "sweep", counted)
    before = backbones()
    arguments = ("--kind", "timing", "--model", f"file://{model}", "--dtype", "float16")
    code, document = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/auto,int8/int8")
    assert (code, len(document.timings)) == (0, 3)
    ((one, *others),) = groups
    assert others == [one, one]
    assert len({each.fit.error_percent for each in document.timings}) == 1


def test_what_was_left_out_is_gone_before_the_next_is_measured(
    tmp_path: Path, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it is counted as what a process takes from its start on."""
    model = make_checkpoint(tmp_path / "model", layers=2)
    measure, held = step_bench.measure, list[int]()

    def refuses_the_first(*arguments: Any) -> MemoryFacts:
        held.append(backbones())
        if len(held) == 1:
            raise OutOfMemoryBudget("memory-mib", "timing one layer takes 9 MiB, 8 are given", "Raise it")
        return measure(*arguments)

    monkeypatch.setattr(step_bench, "measure", refuses_the_first)
    before = backbones()
    arguments = ("--kind", "timing", "--model", f"file://{model}", "--dtype", "float16")
    code, document = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/auto,int8/int8")
    assert code == 0
    assert [one.kv_cache_dtype for one in document.timings] == ["auto", "int8"]
    assert held == 3 * [before + 1]


def backbones() -> int:
    gc.collect()
    return sum(type(each) is Backbone for each in gc.get_objects())


# -- what a person sees --------------------------------------------------------------------------------------


def test_a_table_shows_quality_agreement_rows_and_speed_of_each(
    tmp_path: Path, brief: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = in_whole_units(tmp_path / "model")
    arguments = ["--model", f"file://{model}", "--exit-layers", "2", "--prompts-file", prompts(tmp_path)]
    assert main([*arguments, "--dtype", "float16", "--precisions", "auto/auto,int8/int8", "--osl", "8"]) == 0
    shown = capsys.readouterr().out
    assert "Step times, weights int8, KV cache int8" in shown
    _, _, expected = shown.partition("Expected of 512 prompt and 8 new tokens")
    title, *rows = expected.strip().splitlines()[1:]
    assert title.split("  ")[0] == "candidate"
    assert [row.split()[-8:-5] for row in rows] == [
        ["auto", "auto", "2"], ["auto", "auto", "4"], ["int8", "int8", "2"], ["int8", "int8", "4"],
    ]  # fmt: skip
    full = rows[1].split()
    assert full[-5:-3] == ["100.00", "100"]
    assert all(float(figure) > 0 for row in rows for figure in row.split()[-3:-1])


@pytest.mark.parametrize(
    ("precisions", "field", "said"),
    [
        ("int8", "precisions", "'int8' is no pair"),
        ("int9/auto", "precisions", "'int9' of 'int9/auto' is no precision of weights"),
        ("auto/int4", "precisions", "'int4' of 'auto/int4' is no precision of keys and values"),
        ("auto/auto,", "precisions", "'' is no pair"),
        ("int8/auto,int8/auto", "precisions", "names 'int8/auto' twice"),
        ("auto/auto,auto/fp8", "kv_cache_dtype", "'fp8'"),
    ],
)
def test_a_precision_that_there_is_not_is_named(
    tmp_path: Path, precisions: str, field: str, said: str
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    code, document = run(
        tmp_path, "--kind", "timing", "--model", f"file://{model}", "--precisions", precisions
    )
    assert (code, document.field) == (2, field)
    assert said in document.problem
    assert document.fix


# -- a document that is too long -----------------------------------------------------------------------------


def scored(precisions: tuple[Precision, ...], bundles: int, layers: tuple[int, ...], prompts: int) -> Quality:
    """As long as such rows are: prompts of some 90 tokens at 5 bits each."""

    def exit_(layer: int) -> ExitQuality:
        bits = tuple(480_000 - 1000 * layer + index for index in range(prompts))
        return ExitQuality(layer, sum(bits), 64, 54, 121, 301, bits)

    rows = tuple(
        CandidateQuality(
            f"chat-{bundle}", "sha256:" + "4f" * 32, tuple(map(exit_, (*layers, 30))),
            precision.weight_dtype, precision.kv_cache_dtype,
        )
        for precision in precisions
        for bundle in range(bundles)
    )  # fmt: skip
    return Quality(
        prompts_digest="sha256:" + "4f" * 32,
        prompts=prompts,
        tokens=90 * prompts,
        bytes=400 * prompts,
        prompt_bytes=(400,) * prompts,
        rows=rows,
    )


@pytest.mark.parametrize(
    ("precisions", "bundles", "prompts", "expected"),
    [
        (2, 1, 16, [[24, 27, 30], [24, 27, 30]]),
        (2, 2, 22, [[24, 27, 30], [24, 27], [24, 27, 30], [24, 27]]),
        (2, 1, 64, [[27, 30], [27, 30]]),
        (3, 1, 64, [[27, 30], [30], [30]]),
        (3, 1, 80, [[30], [30], [30]]),
        (6, 1, 64, [[], [], [], [], [], []]),
    ],
)
def test_full_depth_of_each_precision_is_kept_longest(
    precisions: int, bundles: int, prompts: int, expected: list[list[int]]
) -> None:
    whole = scored(PRECISIONS[:precisions], bundles, (24, 27), prompts)
    document = fitted(whole)
    assert isinstance(document, Quality)
    assert len(encode(document)) <= LIMIT_BYTES
    kept = [[each.layer for each in row.exits if each.prompt_millibits] for row in document.rows]
    assert kept == expected
    bare = [replace(each, prompt_millibits=()) for row in whole.rows for each in row.exits]
    assert [replace(each, prompt_millibits=()) for row in document.rows for each in row.exits] == bare


def timed(precision: Precision) -> Timing:
    """As long as a row of two kinds of heads is."""
    return Timing(
        fit=StepTimeFit(
            163_024, 310_112, 21_331, 212, {"bare": HeadCost(912_331, 91_221), "mlp": HeadCost(1, 2)}, 3
        ),
        memory=MemoryFacts(251_133_952, 57_912_832, 7_155_456, 770, 12_544, 196_608, 128, 16),
        exit_bytes={"bare": 0, "mlp": 7_987_200},
        audit_bytes=41_331_200,
        energy=EnergyCost("declared", tuple(EnergyPoint(30, rows, 412_331) for rows in (1, 8, 32) * 2), 21),
        points=(TimingPoint(24, 1, 64, 1, "bare", 6926, 7636),) * 16,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


def test_timings_give_up_their_points_and_nothing_else() -> None:
    whole = Timings(tuple(map(timed, PRECISIONS[:3])))
    assert len(encode(whole)) > LIMIT_BYTES
    assert fitted(whole) == Timings(tuple(replace(one, points=()) for one in whole.timings))
    assert fitted(Timings((timed(REFERENCE),))).timings[0].points  # type: ignore[union-attr]
    with pytest.raises(InvalidRequest, match="Profile fewer candidates, exit layers or precisions"):
        fitted(Timings(tuple(map(timed, PRECISIONS))))
