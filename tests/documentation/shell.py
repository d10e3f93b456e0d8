"""A person's terminal: commands of a page one after the other in one folder, `helios` on the PATH, the ports
of the page led to free ones. What serves until Ctrl-C goes on in a terminal of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.running import Running

_LASTS = re.compile(r"^(?:\w+=\S+ )*(?:helios (?:up|serve|operator)\b|kubectl get .* --watch$)")
_PATIENCE_SECONDS = 1200.0
"""On the real model, beside others."""


class Shell:
    """`replaced`: words of the page, by what stands for them here: places that only the reader has. `ports`:
    of gRPC and of HTTP, which the page calls 8033 and 8000."""

    def __init__(self, folder: Path, replaced: Mapping[str, str] | None = None, **environment: str) -> None:
        self.folder = folder
        self.ports = free_port(), free_port()
        self._replaced = {
            "127.0.0.1:8033": f"127.0.0.1:{self.ports[0]}",
            "localhost:8000": f"localhost:{self.ports[1]}",
            "127.0.0.1:8000": f"127.0.0.1:{self.ports[1]}",
        } | dict(replaced or {})
        programs = Path(sys.executable).parent
        self._environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HELIOS_STATE": str(folder / "state"),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self._running = ExitStack()

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def run(self, command: str, code: int = 0) -> str:
        """What it prints to standard output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(command)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str, *more: str) -> Running:
        """`more`: options of the test's own."""
        assert lasts(command), command
        output = self.folder / f"{time.monotonic_ns()}.out"
        words = f"exec env {self._here(command)} {' '.join((*self._at_free_ports(command), *more))}"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", words],
                cwd=self.folder,
                env=self._environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, output, _PATIENCE_SECONDS)
        self._running.callback(running.end)
        return running

    def _here(self, command: str) -> str:
        for words, place in self._replaced.items():
            command = command.replace(words, place)
        return command

    def _at_free_ports(self, command: str) -> list[str]:
        doors = ["--port", str(self.ports[0]), "--http-port", str(self.ports[1])]
        if "helios serve " in command:
            return [*doors, "--control-port", "0", "--metrics-port", "0"]
        return doors if "helios up " in command else []


def lasts(command: str) -> bool:
    """Until somebody ends it."""
    return _LASTS.search(command) is not None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
