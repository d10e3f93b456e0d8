"""The `helios` command as a person runs it: a process with arguments, an exit status, and two streams of
text."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from helios_cli.main import main

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


@dataclass(frozen=True)
class Up:
    """A running `helios up`, its output in a file."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def until(self, words: str, timeout: float = 240) -> None:
        end = time.monotonic() + timeout
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, f"no {words!r} in:\n{self.text}"
            time.sleep(0.05)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(240)


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
        process.kill()
        process.wait()
