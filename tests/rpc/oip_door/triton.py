"""NVIDIA's own client, unchanged, in a process of its own.

tritonclient asks for protobuf below 7, and registers the same messages as this server under other file names,
which one process cannot hold. So it is installed by itself into the user's cache, once, and spoken to in
lines of JSON (`triton_side.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from helios_server.models.cache import cache_root, ensure_directory

from tests.rpc.pods import Served

CLIENT = "tritonclient==2.73.0"
_WITH = ("protobuf==6.33.6", "python-rapidjson==1.25", "ml-dtypes==0.5.4")
"""What it needs that is not installed here, or not in a release that it takes."""
_SIDE = Path(__file__).with_name("triton_side.py")


def installed() -> Path:
    """The folder that holds it."""
    recipe = f"{sys.version} {' '.join((CLIENT, *_WITH))}"
    return ensure_directory(cache_root() / "tools" / "tritonclient", _install, recipe)


def _install(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--target", str(target), CLIENT, *_WITH], check=True)


class Triton:
    """The client's process. One thing at a time."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(installed())}
        self._process = subprocess.Popen(
            [sys.executable, str(_SIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    async def ask(self, what: str, pod: Served, **given: Any) -> Any:
        """What a function of `triton_side` returns; AssertionError with its trace should it raise."""
        line = json.dumps({"what": what, "url": f"127.0.0.1:{pod.ports.port}", **given})
        answer = json.loads(await asyncio.to_thread(self._exchange, line))
        assert "trace" not in answer, answer["trace"]
        return answer["answer"]

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def run(self, source: str) -> str:
        """What a script prints that has the client at hand."""
        environment = os.environ | {"PYTHONPATH": str(installed())}
        done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(180)
