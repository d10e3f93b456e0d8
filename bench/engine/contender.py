"""One engine in one number format, as the bench sees it: a process that is told what to do and answers.

It must not raise for what the engine does: a peer that fails gives its error, and the others go on.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helios_server.models.cache import ensure_directory

from bench.engine.adapter import Ids, Peer, Setting, Variant
from bench.engine.environments import ROOT, InstallError, folder, python_of

_PATIENCE_SECONDS = 900.0
"""For one answer: a compiler may run, a model be converted."""
_LAST_LINES = 3


class Failed(Exception):
    """What the engine said, or that it said nothing."""


@dataclass
class Contender:
    """`name`: peer:variant. numerics, versions: told by the engine once it is open; errors: why it could not
    do something, by what that was.
    """

    peer_name: str
    variant_name: str
    peer: Peer
    isa: str = "native"
    module: str = ""
    numerics: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _unread: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        return f"{self.peer_name}:{self.variant_name}"

    @property
    def variant(self) -> Variant:
        return self.peer.variants[self.variant_name]

    @property
    def held(self) -> bool:
        """Whether it computes with no more than the instruction set that was asked for."""
        return self.isa == "native" or self.isa in self.peer.pinned

    @property
    def isa_of(self) -> dict[str, Any]:
        """Which instruction set it may use, by which variables; without any it was built for no more."""
        if not self.held:
            return {"set": "native", "by": {}}
        return {"set": self.isa, "by": dict(self.peer.pinned.get(self.isa, {}))}

    @property
    def open(self) -> bool:
        return self._process is not None

    # -- life ------------------------------------------------------------------------------------------------

    def start(self, model: Path, recipe: str, threads: int, rows: int, tokens: int) -> None:
        """Installs, converts and opens what is not yet; tries no more where one of these fails.

        recipe: of the model, so that another one is converted again.
        """
        try:
            self._process = self._started(threads)
            ready = self._prepared(model, recipe)
            setting = Setting(model, ready, self.variant_name, threads, rows, tokens)
            told = self.ask({"do": "open", "setting": json.loads(json.dumps(asdict(setting), default=str))})
            self.numerics, self.versions = told["numerics"], told["versions"]
        except (Failed, InstallError, OSError) as error:
            self.errors["start"] = str(error)
            self.stop()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()  # the end of its work
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _started(self, threads: int) -> subprocess.Popen[bytes]:
        requirements = self.peer.requirements
        own = requirements and python_of(self.peer_name, requirements, self.peer.unwanted)
        venv = folder(self.peer_name) / "venv"
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **self.peer.environment(venv, threads),
            **self.peer.pinned.get(self.isa, {}),
        }
        log = self._log()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            return subprocess.Popen(
                [str(own or sys.executable), "-m", "bench.engine.child", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=variables,
                cwd=log.parent,
            )

    def _prepared(self, model: Path, recipe: str) -> Path:
        if self.peer.prepare is None:
            return folder(self.peer_name)
        target = folder(self.peer_name) / "models" / self.variant_name
        known = f"{recipe} {self.variant_name} {' '.join(self.peer.requirements)}"

        def build(part: Path) -> None:
            told = {"do": "prepare", "model": str(model), "folder": str(part), "variant": self.variant_name}
            self.ask(told)

        return ensure_directory(target, build, known)

    # -- work ------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Ids], new: int) -> float:
        """Seconds for so many new tokens of each prompt. Raises Failed, also for another number of tokens."""
        told = self.ask({"do": "generate", "prompts": prompts, "new": new})
        counts = {len(row) for row in told["tokens"]}
        if len(told["tokens"]) != len(prompts) or counts != {new}:
            rows = f"{len(told['tokens'])} rows of {sorted(counts)} tokens"
            raise Failed(f"it answered {rows}, not {len(prompts)} of {new}")
        return float(told["seconds"])

    def score(self, windows: Sequence[Ids]) -> float:
        """Bits of all tokens but the first of each window. Raises Failed."""
        return float(self.ask({"do": "score", "windows": windows}))

    def ask(self, told: Mapping[str, Any]) -> Any:
        """Raises Failed; after an answer that did not come, there is no process any more."""
        process = self._process
        if process is None or process.stdin is None:
            raise Failed(self.errors.get("start", "it does not run any more"))
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(self._line(process))
        except (OSError, ValueError, Failed) as error:
            process.kill()
            self.stop()
            why = error if isinstance(error, Failed) else f"its process ended ({process.returncode})"
            raise Failed(f"{why}: {' | '.join(self._last_words())}") from None
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["ok"]

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        end = time.monotonic() + _PATIENCE_SECONDS
        assert process.stdout is not None
        while b"\n" not in self._unread:
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not readable:
                raise Failed(f"no answer within {_PATIENCE_SECONDS:.0f} s")
            read = os.read(process.stdout.fileno(), 1 << 20)
            if not read:
                process.wait()
                raise ValueError
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _log(self) -> Path:
        return folder(self.peer_name) / f"{self.variant_name}.log"

    def _last_words(self) -> Iterator[str]:
        lines = self._log().read_text(encoding="utf-8", errors="replace").splitlines()
        yield from [line.strip()[:200] for line in lines if line.strip()][-_LAST_LINES:]
