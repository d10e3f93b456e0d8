"""Wrong input, through the command: one line that names field and fix, status 2, no process and no damage
left."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import helios_cli
import pytest

from tests.checkpoints import make_checkpoint
from tests.cli.command import UP, Result, helios, here, up, write
from tests.local.world import AS_PUBLISHED, PROMPTS, deployment

ONE = [{"name": "deep", "uri": "pvc://models/deep", "exitLayers": [2], **AS_PUBLISHED}]


def run_up(tmp_path: Path, volumes: Path, **spec: Any) -> Result:
    file = write(tmp_path / "chat.yaml", deployment(**spec))
    return here("up", file, "--state", tmp_path / "state", "--volumes", volumes, *UP)


def error_of(result: Result) -> str:
    """The one line that was said; that it is one, and has a fix, is checked."""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code == 2, result
    assert "Traceback" not in result.err
    assert len(lines) == 1, result.err
    assert re.match(r"error: .+: .+; .+", lines[0])
    return lines[0]


def test_unknown_candidate(tmp_path: Path, volumes: Path) -> None:
    result = run_up(tmp_path, volumes, selection={"policy": "Pinned", "candidate": "nobody"})
    assert "selection.candidate is not among the candidates; use one of their names" in error_of(result)
    assert not (tmp_path / "state").exists()


def test_missing_checkpoint(tmp_path: Path, volumes: Path) -> None:
    result = run_up(tmp_path, volumes, candidates=[{"name": "none", "uri": "pvc://models/none"}])
    assert "pvc://models/none: no directory" in error_of(result)


def test_heads_of_another_backbone(tmp_path: Path, volumes: Path) -> None:
    other = make_checkpoint(tmp_path / "other", layers=4, seed=9)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(PROMPTS) * 40)
    heads = tmp_path / "heads"
    tuned = here("tune", f"file://{other}", text, "--layers", 2, "--kind", "affine", "--out", heads)
    assert tuned.code == 0, tuned.err
    result = run_up(tmp_path, volumes, candidates=[ONE[0] | {"exits": f"file://{heads}"}])
    assert "was trained for a backbone with fingerprint" in error_of(result)


def test_budget_above_every_depth(tmp_path: Path, volumes: Path) -> None:
    limits = {"memoryMiB": 1500, "layerBudget": {"min": 40}}
    result = run_up(tmp_path, volumes, candidates=ONE, limits=limits)
    assert "layerBudget.min: 40 is above every candidate's depth; use at most 4" in error_of(result)


def test_no_memory_for_one_sequence(tmp_path: Path, volumes: Path) -> None:
    result = run_up(tmp_path, volumes, candidates=ONE, limits={"memoryMiB": 100})
    assert re.search(r"memory.*MiB", error_of(result))


@pytest.mark.parametrize("prompts", [[], [""], ["x" * 100_000]])
def test_prompts_that_measure_nothing(tmp_path: Path, volumes: Path, prompts: list[str]) -> None:
    result = run_up(tmp_path, volumes, profiling={"prompts": {"inline": prompts}})
    assert "spec.profiling.prompts.inline" in error_of(result)


def test_empty_prompts_of_a_profile(tmp_path: Path, volumes: Path) -> None:
    (tmp_path / "prompts.json").write_text("[]")
    result = here(
        "profile", "--kind", "quality", "--model", "pvc://models/deep", "--volumes", volumes,
        "--prompts-file", tmp_path / "prompts.json",
    )  # fmt: skip
    assert "prompts-file: holds no prompts" in error_of(result)


def test_invalid_yaml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text("kind: HeliosDeployment\nspec:\n  slo: {\n")
    assert re.match(rf"error: {re.escape(str(file))}:4:1: ", error_of(here("up", file, *UP)))
    assert "is missing" in error_of(here("up", write(file, {"kind": "HeliosDeployment"}), *UP))
    assert "cannot be read" in error_of(here("up", tmp_path / "nothing.yaml", *UP))


def test_a_field_that_nobody_reads_is_named(tmp_path: Path, volumes: Path) -> None:
    result = run_up(tmp_path, volumes, replcias=2, selection={"policy": "Pinned", "candidate": "nobody"})
    assert "warning: spec.replcias" in result.err
    assert "replicas" in result.err


def test_port_in_use(tmp_path: Path, volumes: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = write(tmp_path / "chat.yaml", deployment())
        told = ("--state", tmp_path / "state", "--volumes", volumes, "--port", port)
        error = error_of(here("up", file, *told))
    assert f"port: 127.0.0.1:{port} is in use; " in error
    assert not (tmp_path / "state" / "admin.json").exists()


def test_a_state_that_cannot_be_written(tmp_path: Path, volumes: Path) -> None:
    file = write(tmp_path / "chat.yaml", deployment())
    error = error_of(here("up", file, "--state", file / "state", "--volumes", volumes, *UP))
    assert error.startswith(f"error: state: {file}/state cannot be written (")


def test_a_damaged_state_is_named_and_kept(state: Path, volumes: Path, tmp_path: Path) -> None:
    damaged = next((state / "objects" / "heliosprofiles").glob("q-*.json"))
    damaged.write_text(damaged.read_text()[:100])
    file = write(tmp_path / "chat.yaml", deployment())
    error = error_of(here("up", file, "--state", state, "--volumes", volumes, *UP))
    assert error.startswith(f"error: {damaged}: is damaged")
    assert len(damaged.read_text()) == 100


def test_prompts_that_no_model_takes(state: Path, volumes: Path, tmp_path: Path) -> None:
    with up(write(tmp_path / "chat.yaml", deployment()), state, volumes) as running:
        running.until("Available=True")
        told = ("--state", state)
        assert "512" in error_of(here("generate", "word " * 2000, *told))
        assert "sampling_params.top_p: " in error_of(here("generate", "word", "--top-p", 7, *told))
        assert "sampling_params.max_tokens: " in error_of(here("generate", "word", "--max-tokens", -1, *told))
        assert "layer" in error_of(here("generate", "word", "--layers", 3, *told))
        assert running.interrupt() == 0
    nowhere = here("generate", "word", "--address", "127.0.0.1:1")
    assert "check that a deployment serves there" in error_of(nowhere)


def test_benches_are_the_checkouts(tmp_path: Path) -> None:
    assert "invalid choice: 'none' (choose from " in error_of(helios("bench", "none"))
    assert "usage: python -m bench.operator" in helios("bench", "operator", "--help").out
    assert "--peers: there is no 'nobody'" in helios("bench", "engine", "--peers", "nobody").err
    package = tmp_path / "helios_cli"
    shutil.copytree(Path(helios_cli.__file__).parent, package)
    installed = helios(
        "bench", "operator", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    assert "the benchmarks are not part of an installed package; run" in error_of(installed)


def test_verbs_and_arguments(tmp_path: Path) -> None:
    assert "is not a verb" in error_of(here("upp"))
    assert "see `helios up --help`" in error_of(here("up"))
    assert "there is no 'chat'" in error_of(helios("why", "chat", HELIOS_STATE=str(tmp_path)))
    assert "no deployment runs here" in error_of(helios("generate", "word", HELIOS_STATE=str(tmp_path)))
    assert "none; give a state folder" in error_of(
        here("plan", write(tmp_path / "chat.yaml", deployment()), "--profiles", tmp_path / "none")
    )
    assert "layers" in error_of(
        here("model", f"file://{make_checkpoint(tmp_path / 'm')}", "--drop-layers", "9")
    )
