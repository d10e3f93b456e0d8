"""`helios simulate` as a person runs it: the blocks of docs/simulate.md, JSON, and what it says of wrong
input."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helios_cli.main import main
from helios_contract.request_log import AuditLine, RequestLine, from_json

from tests.documentation.blocks import Block, commands, of
from tests.simulate import made

COMMANDS = of("tests/simulate/test_command.py::test_the_page")
(LOG,) = of("tests/simulate/test_command.py::test_the_lines_of_the_page_are_lines_of_a_log")
GENERATE = ("--generate", "60", "--rate", "4", "--no-hindsight")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands name."""
    here = tmp_path_factory.mktemp("simulate")
    made.write_profiles(here / "profiles")
    made.write_spec(here / "chat.yaml")
    (here / "requests.jsonl").write_text(LOG.text)
    return here


def run(folder: Path, *more: str) -> int:
    return main(["simulate", *more, "--spec", f"{folder}/chat.yaml", "--profiles", f"{folder}/profiles"])


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_the_page(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = commands(block.text)
    monkeypatch.chdir(folder)
    assert main(shlex.split(command)[1:]) == 0
    said = capsys.readouterr().out
    assert "FirstSelection" in said
    assert re.search("^as", said, re.MULTILINE)  # it is
    assert ("min_audits" in said) == ("min_audits" in command)
    assert ("The best single option, served all the time" in said) == ("--no-hindsight" not in command)


def test_the_lines_of_the_page_are_lines_of_a_log() -> None:
    assert [type(from_json(line)) for line in LOG.lines] == [RequestLine, AuditLine]


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, *GENERATE, "--output", "json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["quality_is"] == "the profile's: the traffic is generated"
    assert told["result"]["figures"]["requests"] == 60
    assert told["changes"][0]["kind"] == "Select"
    assert all({"at", "what", "reason", "message"} <= each.keys() for each in told["decisions"])


def test_where_quality_comes_from_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request, audit = (folder / "requests.jsonl").read_text().splitlines()
    for lines, said in (
        ([request], "quality is the profile's: the trace has no audit"),
        ([request, audit], "quality is that of 1 audited requests and those after them; else the profile's"),
    ):
        (folder / "one.jsonl").write_text("\n".join(lines))
        assert run(folder, str(folder / "one.jsonl"), "--no-hindsight") == 0
        assert said in capsys.readouterr().out


def test_it_does_without_torch(folder: Path) -> None:
    code = (
        "import sys; from helios_cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 10 * any(name in sys.modules for name in ('torch', 'grpc')))"
    )
    arguments = ["simulate", "--spec", folder / "chat.yaml", "--profiles", folder / "profiles", *GENERATE[:4]]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "arguments: neither a TRACE nor --generate are given; give one of them"),
        (("t.jsonl", "--generate", "5"), "arguments: a TRACE and --generate are given"),
        (("none.jsonl",), "TRACE: none.jsonl cannot be read (No such file or directory)"),
        (("--generate", "0"), "argument --generate: 0 is not above 0"),
        (("--generate", "5", "--rate", "nan"), "argument --rate: nan is not above 0"),
        (("--generate", "5", "--shift-seconds", "-1"), "argument --shift-seconds: -1 is not above 0"),
        (("--generate", "5", "--pass-seconds", "inf"), "argument --pass-seconds: inf is not above 0"),
        (("--generate", "5", "--name", "other"), "holds no such HeliosDeployment"),
        (("--generate", "5", "--ablate", "magic"), "ablate: 'magic' is nothing that can be ablated; use"),
    ],
)
def test_wrong_input_is_named(
    arguments: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_candidate_without_profiles_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()
    told = ["simulate", "--spec", f"{folder}/chat.yaml", "--generate", "5", "--profiles"]
    (folder / "empty" / "none.yaml").write_text("{kind: HeliosModel}")
    assert main([*told, f"{folder}/empty"]) == 2
    assert "profiles: hold no finished Timing profile; profile it first" in capsys.readouterr().err
    assert main([*told, f"{folder}/none"]) == 2
    assert f"profiles: there is no {folder}/none" in capsys.readouterr().err


def test_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "\n  simulate " in capsys.readouterr().out
