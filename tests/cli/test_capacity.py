"""`helios capacity`: what fits, what lacks, what is fetched for it, and every wrong input by name."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli.main import main

from tests.checkpoints import make_checkpoint
from tests.cli.command import helios

GIB = 2**30


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The view of a run that found something that fits."""
    assert main(["capacity", *arguments, "--output", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def by_name(view: dict[str, Any]) -> dict[tuple[int, str, str], dict[str, Any]]:
    return {(one["layers"], one["weight_dtype"], one["kv_cache_dtype"]): one for one in view["combinations"]}


# -- what fits -----------------------------------------------------------------------------------------------


def test_the_papers_largest_batch_is_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    view = told(capsys, "Llama-2-70B", "--memory", "42.3GB", "--accelerators", "4", "--layers", "22")
    assert by_name(view)[22, "auto", "auto"]["gain"] == pytest.approx(15.2, abs=0.05)
    assert view["memory_bytes"] == 169_200_000_000


def test_every_depth_is_told_in_every_precision(capsys: pytest.CaptureFixture[str]) -> None:
    view = told(capsys, "llama-3-8b", "--memory", "24GiB", "--isl", "1000", "--osl", "24")
    found = by_name(view)
    assert {layers for layers, _, _ in found} == {32, 29, 26, 19, 13}
    assert len(found) == 5 * 6
    assert view["tokens_per_request"] == 1024
    full, small = found[32, "auto", "auto"], found[32, "int8", "int8"]
    assert full["gain"] == 1.0
    assert small["gain"] == round(small["tokens"] / full["tokens"], 2) > 3
    for one in found.values():
        assert one["rows"] == one["tokens"] // 1024 or one["rows"] + 1 == one["tokens"] // 1024  # logits
        assert one["weight_bytes"] + one["tokens"] * one["kv_bytes_per_token"] <= 24 * GIB


def test_what_is_reserved_is_not_given_to_requests(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("Llama-2-7B", "--accelerators", "2", "--layers", "32", "--precisions", "auto/auto,int8/fp8")
    kept = told(capsys, *arguments, "--memory", "25GiB", "--reserve", "1Gi")
    free = told(capsys, *arguments, "--memory", "24576MiB")
    assert kept["combinations"] == free["combinations"]
    assert kept["reserved_bytes"] == 2 * GIB


def test_what_does_not_fit_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "Llama-2-7B", "--memory", "1GiB", "--layers", "32,8"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"32 +auto +auto .* 11\.9( GiB)?", line) for line in lines)
    view = told(capsys, "Llama-2-7B", "--memory", "4GiB", "--layers", "32,8")
    found = by_name(view)
    assert (found[32, "auto", "auto"]["rows"], found[32, "auto", "auto"]["gain"]) == (0, None)
    lacking = found[32, "auto", "auto"]["missing_bytes"]
    enough = told(capsys, "Llama-2-7B", "--memory", f"{(4 * GIB + lacking) / 1024:.6f}KiB", "--layers", "32")
    assert by_name(enough)[32, "auto", "auto"]["rows"] == 1
    assert found[8, "auto", "auto"]["missing_bytes"] == 0


def test_a_table_and_yaml_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["capacity", "OPT-1.3B", "--memory", "36GB", "--layers", "24,6", "--precisions", "auto/auto"]
    assert main([*arguments, "--output", "yaml"]) == 0
    view = yaml.safe_load(capsys.readouterr().out)
    assert view == told(capsys, *arguments[1:])
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "4.20x" in shown
    assert "Not counted: " in shown
    assert "several are this arithmetic alone" not in shown


# -- where the shape comes from ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3_text"])
def test_a_folder_needs_its_config_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    model = make_checkpoint(tmp_path / "models" / "tiny", family)
    whole = told(capsys, f"file://{model}", "--memory", "8MiB")
    for file in model.iterdir():
        if file.name != "config.json":
            file.unlink()
    assert told(capsys, str(model), "--memory", "8MiB")["combinations"] == whole["combinations"]
    volumes = str(tmp_path)
    through = told(capsys, "pvc://models/tiny", "--volumes", volumes, "--memory", "8MiB")
    assert through["combinations"] == whole["combinations"]
    assert whole["tokens_per_request"] == 512  # no more than the model's context


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub with one model of a layer or two; its address, and what it was asked for."""
    config = json.dumps({"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3,
                         "num_attention_heads": 4, "intermediate_size": 96}).encode()  # fmt: skip
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(config)

        def _answer(self, content: bytes) -> None:
            asked.append(self.path)
            found = self.path.endswith("/org/tiny/resolve/main/config.json")
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", '"1"')
            self.send_header("X-Error-Code", "" if found else "RepoNotFound")
            self.send_header("Content-Length", str(len(config) if found else 0))
            self.end_headers()
            self.wfile.write(content if found else b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_of_a_model_of_the_hub_config_json_alone_is_fetched(
    tmp_path: Path, hub: tuple[str, list[str]]
) -> None:
    address, asked = hub
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    fits = helios("capacity", "hf://org/tiny", "--memory", "8MiB", "-o", "json", **environment)
    assert fits.code == 0, fits.err
    assert json.loads(fits.out)["layers"] == 3
    of_models = {path for path in asked if path.startswith("/org/")}
    assert of_models == {"/org/tiny/resolve/main/config.json"}
    absent = helios("capacity", "hf://org/absent", "--memory", "8MiB", **environment)
    assert absent.code == 2
    assert absent.err.startswith("error: hf://org/absent: cannot be fetched")
    offline = helios("capacity", "hf://org/tiny", "--memory", "8MiB", **environment | {"HF_HUB_OFFLINE": "1"})
    assert offline.code == 0, offline.err  # from the cache


# -- a picture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    told(capsys, "SmolLM2-135M", "--memory", "600MiB", "--plot", str(tmp_path / name))
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    if name.endswith("svg"):
        assert b"int8 / int8" in drawn


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)  # as if it were not there
    assert main(["capacity", "OPT-1.3B", "--memory", "8GiB", "--plot", str(tmp_path / "plot.svg")]) == 2
    said = capsys.readouterr().err
    assert said == "error: plot: matplotlib is not installed; install it: pip install 'helios-serve[plot]'\n"


# -- wrong input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("Lama --memory 1GiB", "Lama: is neither a known shape nor a folder; use one of SmolLM2-135M, "),
        ("file:///no/such --memory 1GiB", "file:///no/such: no directory"),
        ("hf://lama --memory 1GiB", "hf://lama: does not name a repository"),
        ("s3://b/c --memory 1GiB", "s3://b/c: is not a URI"),
        ("{empty} --memory 1GiB", "config.json: file is missing"),
        ("{quantised} --memory 1GiB", "quantization_config.quant_method: "),
        ("OPT-1.3B", "arguments: "),
        ("OPT-1.3B --memory 24", "memory: '24' has no unit; write it with one of KiB, "),
        ("OPT-1.3B --memory 24G", "memory: '24G' is no size"),
        ("OPT-1.3B --memory -1GiB", "memory"),
        ("OPT-1.3B --memory nanGiB", "memory: 'nanGiB' is no size"),
        ("OPT-1.3B --memory 0GiB", "memory: '0GiB' is nothing"),
        ("OPT-1.3B --memory 1GiB --reserve 1", "reserve: '1' has no unit"),
        ("OPT-1.3B --memory 1GiB --reserve 1GiB", "reserve: 1GiB leaves nothing of 1GiB"),
        ("OPT-1.3B --memory 1GiB --accelerators 0", "accelerators: '0' is no whole number"),
        ("OPT-1.3B --memory 1GiB --layers 25", "layers: 25 is above the model's depth of 24"),
        ("OPT-1.3B --memory 1GiB --layers 1,x", "layers: 'x' is no whole number"),
        ("OPT-1.3B --memory 1GiB --isl 0", "isl: '0' is no whole number"),
        ("OPT-1.3B --memory 1GiB --isl 2000", "tokens-per-request: 2128 tokens of a request are"),
        ("OPT-1.3B --memory 1GiB --tokens-per-request 9 --osl 3", "tokens-per-request: is"),
        ("OPT-1.3B --memory 1GiB --precisions int8", "precisions: 'int8' is no pair"),
        ("OPT-1.3B --memory 1GiB --precisions int7/auto", "precisions: 'int7' of 'int7/auto' is"),
        ("OPT-1.3B --memory 1GiB --precisions int8/int4", "precisions: 'int4' of 'int8/int4' is"),
        ("OPT-1.3B --memory 1GiB --precisions auto/auto,auto/auto", "precisions: names 'auto/auto'"),
        ("OPT-1.3B --memory 1GiB --plot /no/such/plot.svg", "plot: /no/such/plot.svg cannot be"),
        ("OPT-1.3B --memory 1GiB --plot {empty}/plot.abc", "plot: "),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    empty, quantised = tmp_path / "empty", tmp_path / "quantised"
    empty.mkdir()
    make_checkpoint(quantised, quantization_config={"quant_method": "gptq", "bits": 4})
    assert main(["capacity", *arguments.format(empty=empty, quantised=quantised).split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert "; " in lines[0]
