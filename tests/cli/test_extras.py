"""Every verb in an environment that holds one extra and nothing else: it works, or says in one line which
extra it lacks.

Small, the environments are put together from what is installed here; at length, pip installs the wheel that
`make wheel` makes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helios_cli import extras
from helios_cli.main import VERBS

from tests.cli.installed import ROOT, installation, libraries
from tests.documentation.blocks import Block, commands
from tests.documentation.shell import Shell
from tests.sizes import LONG

_OF_A_PLACE = {"status", "why", "profiles", "reassess", "switch", "rollback", "pause"}
_OF_A_MODEL = {"model", "serve", "profile", "tune", "capacity"}
_ALONE = {"version", "generate", "bench", "rm"}
WORK = {
    "client": _ALONE,
    "plot": _ALONE,
    "otel": _ALONE,
    "operator": {*_ALONE, *_OF_A_PLACE, "operator", "report", "simulate"},
    "cli": {*_ALONE, *_OF_A_PLACE, "operator", "report", "simulate"},
    "server": {*_ALONE, *_OF_A_PLACE, *_OF_A_MODEL} - {"why"},
    "cli,server": set(VERBS),
}
"""By extra: the verbs that find all that they need. `bench` is the checkout's: without one it says so."""
_RUN = """
import contextlib, io, json, sys, traceback
from helios_cli.main import main
done = {}
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
    done[arguments[0]] = [code, err.getvalue()]
print(json.dumps(done))
"""


def arguments(tmp_path: Path) -> list[list[str]]:
    """As a user would write them, against nothing that runs: `up` is asked for a file that is not there, so
    that it ends where it works."""
    text = tmp_path / "text"
    text.write_text("too short")
    none, model = str(tmp_path / "none"), f"file://{tmp_path / 'model'}"
    given = {
        "up": [none],
        "why": ["chat"],
        "report": ["chat"],
        "simulate": [none, "--spec", str(ROOT / "examples" / "pinned.yaml")],
        "reassess": ["chat"],
        "switch": ["chat", "other"],
        "rollback": ["chat"],
        "pause": ["chat"],
        "rm": ["chat"],
        "generate": ["word", "--address", "127.0.0.1:1"],
        "capacity": ["Llama-3-8B", "--memory", "24GiB"],
        "plan": [str(ROOT / "examples" / "pinned.yaml"), "--profiles", str(tmp_path)],
        "model": [model],
        "operator": ["--server-image", "x", "--operator-namespace", "default", "--operator-name", "helios"],
        "serve": ["--model", model],
        "profile": ["--model", model],
        "tune": [model, str(text), "--layers", "1", "--out", none],
        "bench": ["nothing"],
    }
    return [[verb, *given.get(verb, ())] for verb in VERBS]


def run_all(python: Path, tmp_path: Path) -> dict[str, tuple[int | None, str]]:
    """Exit status (None: a traceback) and standard error of each verb."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HELIOS_STATE": str(tmp_path / "state"), "KUBECONFIG": str(tmp_path / "no-kubeconfig")}
    command = [python, "-c", _RUN, json.dumps(arguments(tmp_path))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {verb: (code, err) for verb, (code, err) in json.loads(done.stdout.splitlines()[-1]).items()}


def check(extra: str, python: Path, tmp_path: Path) -> None:
    for verb, (code, err) in run_all(python, tmp_path).items():
        assert code in (0, 1, 2), f"helios {verb} with [{extra}]: {err}"
        advised = re.findall(r"pip install 'helios-serve\[([\w,]+)]'", err)
        if verb in WORK[extra]:
            assert not advised, f"helios {verb} with [{extra}]: {err}"
        else:
            assert (code, len(err.splitlines())) == (2, 1), f"helios {verb} with [{extra}]: {err}"
            assert err.startswith(f"error: {verb}: needs ")
            assert set(extras.NEEDS[verb]) >= set(advised[0].split(",")), err
            assert set(advised[0].split(",")).isdisjoint(extra.split(",")), err


@pytest.mark.parametrize("extra", ["client", "cli", "server"])
def test_each_verb_works_or_names_its_extra(extra: str, tmp_path: Path) -> None:
    check(extra, installation(tmp_path / "env", extra), tmp_path)


def test_each_verb_knows_its_extras() -> None:
    assert extras.NEEDS.keys() == VERBS.keys()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make wheel` makes it."""
    if not LONG:
        pytest.skip("`make test-long` runs it: pip installs each extra")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["make", "wheel", f"DIST={folder}", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    return next(folder.glob("helios_serve-*.whl"))


@pytest.mark.long
@pytest.mark.parametrize("extra", WORK)
def test_what_pip_installs(extra: str, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--constraint", "constraints.txt", f"{wheel}[{extra}]"], cwd=ROOT, check=True)
    check(extra, python, tmp_path)


@pytest.mark.long
def test_the_readme_installs_the_wheel(documented: list[Block], wheel: Path, tmp_path: Path) -> None:
    """As it stands, where torch is there already, as the page has it: nothing else is fetched either."""
    (block,) = documented
    (command,) = commands(block.text)
    (tmp_path / "dist").symlink_to(wheel.parent)
    python = libraries(tmp_path / "env", "cli", "server")
    pip = python.with_name("pip")
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --python {python} "$@"\n')
    pip.chmod(0o755)
    with Shell(tmp_path, PATH=f"{python.parent}:{os.environ['PATH']}", PIP_NO_INDEX="1") as shell:
        assert "Successfully installed helios-serve" in shell.run(command)
        assert str(tmp_path) in shell.run("command -v helios")
        assert "helios" in shell.run("helios version")
        assert "FILE" in shell.run("helios up --help")
