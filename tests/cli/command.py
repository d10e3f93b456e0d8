"""The `helios` command as a person runs it: a process with arguments, an exit status, and two streams of
text."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from helios_cli.main import main

from tests.running import Running

HELIOS = [sys.executable, "-m", "helios_cli"]
UP = ("--port", "0", "--http-port", "free", "--device", "cpu", "--dtype", "float32")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def helios(*arguments: object, timeout: float = 240, **environment: str) -> Result:
    command = [*HELIOS, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def here(*arguments: object) -> Result:
    """The same in this process, which spares it a start and its imports: for what soon ends by itself."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def write(path: Path, *objects: Any) -> Path:
    path.write_text(yaml.safe_dump_all(objects))
    return path


def plugin(folder: Path) -> Path:
    """A folder for the PATH with `kubectl-helios`, as an installation makes it."""
    script = folder / "bin" / "kubectl-helios"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom helios_cli.kubectl import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return script.parent


class Up(Running):
    """A running `helios up`."""

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def up(file: Path, state: Path, volumes: Path, *arguments: object) -> Iterator[Up]:
    output = state.with_name(f"{state.name}.out")
    command = [*HELIOS, "up", str(file), "--state", str(state), "--volumes", str(volumes), *UP]
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=stream, stderr=subprocess.STDOUT, env=os.environ
        )
    running = Up(process, output)
    try:
        yield running
    finally:
        running.end()
