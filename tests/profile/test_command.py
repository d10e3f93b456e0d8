"""`helios profile` from outside: what a Job hands back, what a person sees, and every wrong input by name."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helios_contract.limits import Limits
from helios_operator.api import identity, results
from helios_server.engine.host_memory import anonymous_bytes
from helios_server.engine.limits import EngineConfig
from helios_server.exits.confidence import Calibration
from helios_server.profile import main
from helios_server.profile.sweep import EFFORTS, Effort
from helios_server.rpc.auth import Token
from helios_server.rpc.server import PodServer, Ports

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS, idle_after, noise_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idle_after(tmp_path_factory.mktemp("models") / "model", layer=2)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(TEXTS))
    return file


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and result document."""
    result = tmp_path / "result.json"
    code = main([*arguments, "--result", str(result), "--output", "json"])
    return code, json.loads(result.read_text())


def as_json(*rows: dict[str, Any]) -> str:
    return json.dumps(rows)


# -- a Job ---------------------------------------------------------------------------------------------------


def test_one_bad_candidate_does_not_spoil_an_inspection(tmp_path: Path, model: Path) -> None:
    other = make_checkpoint(tmp_path / "other", layers=3, seed=1)
    heads = noise_bundle(tmp_path / "heads", model, (1, 3))
    uri = f"file://{model}"
    candidates = as_json(
        {"name": "own", "uri": uri, "exitLayers": [2, 4]},
        {"name": "heads", "uri": uri, "revision": "r7", "exits": f"file://{heads}"},
        {"name": "narrow", "uri": uri, "exits": f"file://{heads}", "exitLayers": [3]},
        {"name": "gone", "uri": f"file://{tmp_path}/gone"},
        {"name": "foreign", "uri": f"file://{other}", "exits": f"file://{heads}"},
        {"name": "deep", "uri": uri, "exitLayers": [9]},
    )
    code, document = run(tmp_path, "--kind", "inspect", "--candidates", candidates)
    assert code == 0
    found = results.inspection(results.read(json.dumps(document)))
    resolved, problems = found.resolved, found.problems
    assert set(problems) == {"gone", "foreign", "deep"}
    assert "no directory" in problems["gone"]
    assert "was trained for a backbone with numLayers 4 (expected)" in problems["foreign"]
    assert "above the model's depth of 4" in problems["deep"]
    assert resolved["own"].exit_layers == (2,)  # 4 is full depth
    assert (resolved["own"].head_kind, resolved["own"].exits_digest) == ("bare", "")
    assert resolved["heads"].exit_layers == (1, 3)
    assert resolved["heads"].head_kind == "mlp"
    assert resolved["heads"].exits_digest.startswith("sha256:")
    assert resolved["heads"].revision == "r7"
    assert resolved["narrow"].exit_layers == (3,)
    assert resolved["own"].backbone == resolved["heads"].backbone
    assert resolved["own"].num_layers == 4
    assert resolved["own"].max_context_tokens == 512


def test_a_bound_of_the_context_is_obeyed_by_every_kind(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))
    endless = make_checkpoint(tmp_path / "endless", max_position_embeddings=4_194_304)
    one = ("--candidates", as_json({"name": "one", "uri": f"file://{endless}"}), "--dtype", "float32")
    limit = anonymous_bytes() // 2**20 + 500  # what the tests before this one left counts too
    timing = ("--kind", "timing", *one, "--memory-mib", str(limit))
    quality = ("--kind", "quality", *one, "--prompts-file", str(prompts))
    code, document = run(tmp_path, *timing)
    assert code == 2
    assert "timing one layer takes" in document["error"]["problem"]
    assert "context of 4194304 tokens (--max-context, limits.maxContextTokens)" in document["error"]["fix"]
    assert run(tmp_path, *timing, "--max-context", "8192")[0] == 0
    for kind in (timing, quality):
        code, document = run(tmp_path, *kind, "--memory-mib", str(limit - 400))
        assert code == 2
        assert "positions of 4194304 tokens" in document["error"]["problem"]
    _, document = run(tmp_path, "--kind", "inspect", *one, "--max-context", "8192")
    found = results.inspection(results.read(json.dumps(document))).resolved["one"]
    assert (found.max_context_tokens, found.model_context_tokens) == (8192, 4_194_304)
    assert run(tmp_path, *quality, "--max-context", "8192")[0] == 0
    code, document = run(tmp_path, *quality, "--max-context", "3")
    assert code == 2
    assert "the model reads 1 to 3" in document["error"]["problem"]
    assert "--max-context" in document["error"]["fix"]


def test_an_inspection_tells_the_calibrated_thresholds(tmp_path: Path, model: Path) -> None:
    told = Calibration(lowest=(0.05, 0.4, 0.8), tokens=(500, 500, 500), agreed=(50, 420, 495))
    hopeless = Calibration(lowest=(0.05,), tokens=(500,), agreed=(100,))
    heads = noise_bundle(tmp_path / "heads", model, (1, 2, 3), calibration={1: hopeless, 2: told})
    candidate = {"name": "one", "uri": f"file://{model}", "exits": f"file://{heads}"}
    _, document = run(tmp_path, "--kind", "inspect", "--candidates", as_json(candidate))
    resolved = results.inspection(results.read(json.dumps(document))).resolved
    assert resolved["one"].breach_thresholds == {2: 0.4}


def test_quality_of_a_prompts_file(tmp_path: Path, model: Path, prompts: Path) -> None:
    digest = identity.prompts_digest(TEXTS)
    candidates = as_json({"name": "own", "uri": f"file://{model}", "exitLayers": [2]})
    code, document = run(
        tmp_path, "--kind", "quality", "--candidates", candidates, "--prompts-file", str(prompts),
        "--prompts-digest", digest, "--dtype", "float32",
    )  # fmt: skip
    assert code == 0
    assert document["promptsDigest"] == digest
    assert document["rows"][0]["exits"][0]["agreementPercent"] == 100


def test_timing_within_a_memory_limit(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))
    candidates = as_json({"name": "own", "uri": f"file://{model}"})
    code, document = run(tmp_path, "--kind", "timing", "--candidates", candidates, "--memory-mib", "8192")
    assert code == 0
    assert document["fit"]["head"]["bare"].keys() == {"baseNs", "perRowNs", "atNs"}


def test_a_person_reads_tables(
    model: Path, prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))
    arguments = ["--model", f"file://{model}", "--exit-layers", "1,2", "--prompts-file", str(prompts)]
    assert main([*arguments, "--dtype", "float32", "--isl", "40", "--osl", "8"]) == 0
    shown = capsys.readouterr()
    assert "Quality on 4 prompts" in shown.out
    assert "Step times" in shown.out
    assert "layer 1 of 4" in shown.err
    assert main(["--kind", "inspect", "--model", f"file://{model}", "--exit-layers", "1,2"]) == 0
    assert "1, 2" in capsys.readouterr().out


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "helios_server.profile",
        "--kind",
        "inspect",
        "--model",
        f"file://{tmp_path}/no",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0
    assert "no directory" in done.stdout


# -- live prompts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pod(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Control port of a real pod whose live prompts are TEXTS; what it would serve is not loaded."""
    token = tmp_path_factory.mktemp("pod") / "token"
    token.write_text("secret")
    limits = Limits(generation=1, candidate="one", model_uri=f"file://{model}", live_prompts=len(TEXTS))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def opened() -> tuple[PodServer, int]:
        server = PodServer("chat", EngineConfig(), limits, token=Token(token))
        ports = await server.open("127.0.0.1", Ports(0, 0, 0, None))
        for ordinal, text in enumerate(TEXTS):
            server.pod.prompts.add(ordinal, 20, lambda text=text: text)
        return server, ports.control_port

    server, port = asyncio.run_coroutine_threadsafe(opened(), loop).result(30)
    yield f"127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def live(tmp_path: Path, model: Path, pod: str, token: str, digest: str) -> tuple[int, dict[str, Any]]:
    (tmp_path / "token").write_text(f"{token}\n")
    return run(
        tmp_path, "--kind", "quality", "--model", f"file://{model}", "--dtype", "float32",
        "--prompts-from", pod, "--control-token-file", str(tmp_path / "token"), "--prompts-digest", digest,
    )  # fmt: skip


def test_live_prompts_come_from_a_pod(tmp_path: Path, model: Path, pod: str) -> None:
    code, document = live(tmp_path, model, pod, "secret", identity.prompts_digest(TEXTS))
    assert code == 0
    assert document["promptsDigest"] == identity.prompts_digest(TEXTS)
    assert document["prompts"] == len(TEXTS)
    assert not any(text in json.dumps(document, ensure_ascii=False) for text in TEXTS)


def test_a_pod_that_refuses_is_told_by_name(tmp_path: Path, model: Path, pod: str) -> None:
    code, document = live(tmp_path, model, pod, "guess", "")
    assert (code, document["error"]["field"]) == (2, "control-token-file")
    code, document = live(tmp_path, model, pod, "secret", "sha256:0000")
    assert (code, document["error"]["field"]) == (2, "prompts-digest")
    assert "sha256:0000" in document["error"]["problem"]


def test_a_pod_that_does_not_answer_is_told_by_name(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helios_server.profile.prompts._TIMEOUT_SECONDS", 0.2)
    code, document = live(tmp_path, model, "127.0.0.1:1", "secret", "")
    assert (code, document["error"]["field"]) == (2, "prompts-from")


# -- wrong input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--kind", "timing"], "model"),
        (["--kind", "timing", "--model", "{model}", "--candidates", "[]"], "model"),
        (["--model", "{model}"], "kind"),
        (["--kind", "inspect", "--candidates", "{"], "candidates"),
        (["--kind", "inspect", "--candidates", "[]"], "candidates"),
        (["--kind", "inspect", "--candidates", '[{"name": "a"}]'], "candidates[0].uri"),
        (["--kind", "inspect", "--candidates", '[{"name": "a", "uri": "x", "u": ""}]'], "candidates[0].u"),
        (["--kind", "inspect", "--candidates", '[{"name": "a", "uri": "x", "exitLayers": [0]}]'],
         "candidates[0].exitLayers"),
        (["--kind", "inspect", "--candidates", '[{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]'],
         "candidates"),
        (["--kind", "quality", "--model", "{model}"], "prompts"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "/no/such"], "prompts-file"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "{empty}"], "prompts-file"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "{blank}"], "prompts-file[1]"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "{broken}"], "prompts-file"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "{good}", "--prompts-digest", "sha:"],
         "prompts-digest"),
        (["--kind", "quality", "--model", "{model}", "--exits", "builtin://none", "--prompts-file", "{good}"],
         "builtin://none"),
        (["--kind", "quality", "--model", "file:///no/such", "--prompts-file", "{good}"], "file:///no/such"),
        (["--kind", "quality", "--model", "{model}", "--prompts-file", "{good}", "--dtype", "int3"], "dtype"),
        (["--kind", "timing", "--model", "{model}", "--memory-mib", "10"], "memory-mib"),
        (["--kind", "timing", "--model", "{model}", "--device", "warp"], "device"),
    ],
)  # fmt: skip
def test_wrong_input_names_field_problem_and_fix(
    tmp_path: Path, model: Path, arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"empty": "[]", "blank": '["text", "  "]', "broken": '["text"', "good": "a prompt of one line\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    places = {"model": f"file://{model}"} | {name: str(tmp_path / name) for name in files}
    filled = [places.get(argument.strip("{}"), argument) if argument.startswith("{") else argument
              for argument in arguments]  # fmt: skip
    code, document = run(tmp_path, *filled)
    assert code == 2
    assert document["error"]["field"] == field
    assert document["error"]["problem"]
    assert document["error"]["fix"]
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {field}: ")
    assert not list(tmp_path.glob(".result.json*"))
