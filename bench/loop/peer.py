"""`transformers` as an arm: a process of its own, asked as a pod is.

Called by `arms`. It reads no spans, for the model is whole and as published; the limit of memory does not
bind it. Who else is to be compared with is a process that speaks as `peer_process` does.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from helios_server.models.tokenizer import Tokenizer

from bench.engine.environments import ROOT
from bench.loop.trace import Arrival
from examples.demo.traffic import Stream

_START_SECONDS = 300.0


class Peer:
    """One that answers. batching: how it says that it does it."""

    def __init__(self, process: asyncio.subprocess.Process, tokenizer: Tokenizer, osl: int) -> None:
        self.batching = ""
        self._process = process
        self._tokenizer = tokenizer
        self._osl = osl
        self._heard: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._ended = False

    async def ask(self, arrival: Arrival) -> Stream:
        """To its end, or until the process has ended."""
        name, heard = str(arrival.number), asyncio.Queue[dict[str, Any]]()
        self._heard[name] = heard
        ids = self._tokenizer.encode(arrival.text, add_special=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": name, "ids": ids, "new": self._osl}).encode() + b"\n")
        if self._ended:
            heard.put_nowait(_end())
        began, told = math.inf, dict[str, Any]()
        while not (told.get("ended") or told.get("error")):
            told = await heard.get()
            if told["tokens"]:
                began = min(began, told["at"])
        del self._heard[name]
        tokens = (0,) * told["tokens"]  # how many is all that is asked
        return Stream(arrival.domain, arrival.text, "", tokens, (), 0.0, began, told["at"], told["error"])

    async def read(self) -> None:
        """Hands on what the process says, until it ends; then whoever waits is told."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if told.get("id") in self._heard:
                self._heard[told["id"]].put_nowait(told)
        self._ended = True
        for heard in self._heard.values():
            heard.put_nowait(_end())


def _end() -> dict[str, Any]:
    return {"tokens": 0, "at": time.monotonic(), "error": "the process ended"}


@asynccontextmanager
async def answering(model: Path, dtype: str, rows: int, tokens: int, osl: int) -> AsyncIterator[Peer]:
    """rows: at once at most; tokens: of a request at most. Raises RuntimeError where it does not come up."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.loop.peer_process", str(model), dtype, str(rows), str(tokens)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
        )
        peer = Peer(process, Tokenizer.open(model), osl)
        reading: asyncio.Task[None] | None = None
        try:
            assert process.stdout is not None
            first = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
            if not first:
                errors.seek(0)
                raise RuntimeError(f"transformers does not come up: {errors.read()[-1000:].decode()}")
            peer.batching = json.loads(first)["batching"]
            reading = asyncio.create_task(peer.read())
            yield peer
        finally:
            if reading:
                reading.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()
