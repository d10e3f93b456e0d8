"""A precision that cannot be had keeps no other from being measured, and is named with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helios_contract import results, tasks
from helios_contract.results import LeftOut, Quality, Tasks, Timings
from helios_contract.tasks import Expectation, Task
from helios_server.errors import OutOfMemoryBudget
from helios_server.profile import main, quality
from helios_server.profile import tasks as asking
from helios_server.profile.sweep import EFFORTS, Effort
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS

WHY = "weight_dtype: int4 cannot hold a weight of 1e+06"
MATRICES = ("model.layers.2.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight")
ALL = "auto/auto,int4/auto,int8/auto,int4/int8"
Unheld = Callable[[str], Path]


@pytest.fixture
def unheld(tmp_path: Path) -> Unheld:
    """A model with a weight that int4 cannot hold, since its minima are float16: here in this matrix."""

    def made(matrix: str) -> Path:
        model = make_checkpoint(tmp_path / "model")
        tensors = load_file(model / "model.safetensors")
        tensors[matrix][0, 0] = 1e6
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        return model

    return made


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))


def run(tmp_path: Path, kind: str, model: Path, precisions: str, *more: str) -> tuple[int, Any]:
    (tmp_path / "prompts.json").write_text(json.dumps(TEXTS))
    task = Task("one", Expectation(regex="^"), prompt="x", max_tokens=2)
    (tmp_path / "tasks.json").write_text(tasks.document([task]))
    given = {
        "timing": (),
        "quality": ("--prompts-file", str(tmp_path / "prompts.json")),
        "tasks": ("--tasks-file", str(tmp_path / "tasks.json")),
    }
    file = tmp_path / "result.json"
    code = main([
        "--kind", kind, "--model", f"file://{model}", "--dtype", "float32", "--precisions", precisions,
        *given[kind], *more, "--result", str(file), "--output", "json",
    ])  # fmt: skip
    return code, results.from_json(file.read_text())


def held(found: Timings | Quality | Tasks) -> list[tuple[str, str]]:
    rows = found.timings if isinstance(found, Timings) else found.rows
    return [(row.weight_dtype, row.kv_cache_dtype) for row in rows]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("kind", ["timing", "quality", "tasks"])
def test_what_a_format_cannot_hold_is_left_out_and_named(
    tmp_path: Path, unheld: Unheld, kind: str, matrix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run(tmp_path, kind, unheld(matrix), ALL)
    assert code == 0
    assert held(found) == [("auto", "auto"), ("int8", "auto")]
    assert found.left_out == (LeftOut("int4", "auto", WHY), LeftOut("int4", "int8", WHY))
    assert f"int4/auto is left out: {WHY}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["timing", "tasks"])
def test_where_nothing_else_is_asked_for_the_job_fails_by_name(
    tmp_path: Path, unheld: Unheld, kind: str
) -> None:
    for precisions in ("int4/auto", "int4/auto,int4/int8"):
        code, failed = run(tmp_path, kind, unheld(MATRICES[0]), precisions)
        assert (code, failed.field) == (2, "weight_dtype")
        assert "int4 cannot hold" in failed.problem


@pytest.mark.parametrize(
    ("kind", "module", "checks"), [("quality", quality, "score_texts"), ("tasks", asking, "_check_memory")]
)
def test_what_memory_cannot_hold_is_left_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: Any, checks: str
) -> None:
    model, real = make_checkpoint(tmp_path / "model", layers=2), getattr(module, checks)

    def scarce(*arguments: Any) -> Any:
        precision = arguments[5] if checks == "score_texts" else arguments[0].precision
        if precision.weight_dtype == "int8":
            raise OutOfMemoryBudget("memory-mib", "takes 9 MiB, 8 are given", "Raise it")
        return real(*arguments)

    monkeypatch.setattr(module, checks, scarce)
    code, found = run(tmp_path, kind, model, "auto/auto,int8/auto,auto/int8")
    assert code == 0
    assert held(found) == [("auto", "auto"), ("auto", "int8")]
    assert found.left_out == (LeftOut("int8", "auto", "memory-mib: takes 9 MiB, 8 are given"),)


def test_what_says_something_of_all_fails_all(tmp_path: Path, unheld: Unheld) -> None:
    model = unheld(MATRICES[0])
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    code, failed = run(tmp_path, "quality", model, ALL)
    assert code == 2
    assert "down_proj" in f"{failed.field} {failed.problem}"
