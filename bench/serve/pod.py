"""A pod of the bench's own: `helios serve` as a process, what it takes, and what its metrics say.

Started by `__main__` and `crowd`; ended with the block. Linux: memory and processor time are read from /proc.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from helios_contract import limits as document
from helios_contract.limits import Limits

_START_SECONDS = 300.0
_TICK = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Places in /proc/PID/stat behind the name."""


@dataclass(frozen=True)
class Settings:
    """rows, queue: of requests; threads: of the engine; model: a folder; memory_mib: of the whole process, 0
    for the machine's."""

    model: Path
    rows: int
    queue: int
    threads: int
    tokens_per_request: int = 512
    memory_mib: int = 0


@dataclass(frozen=True)
class Pod:
    pid: int
    ports: dict[str, int]

    @property
    def cpu_seconds(self) -> float:
        places = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(places[_USER]) + int(places[_SYSTEM])) / _TICK

    @property
    def peak_mib(self) -> float:
        """Of resident memory, since `forget_peak`."""
        return self._memory("VmHWM")

    @property
    def resident_mib(self) -> float:
        return self._memory("VmRSS")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _memory(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024

    async def metrics(self) -> Metrics:
        url = f"http://127.0.0.1:{self.ports['metrics_port']}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return Metrics(await answer.text())


class Metrics:
    """A page of Prometheus' text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def total(self, name: str) -> float:
        """A counter, over all its labels."""
        return self.value(f"{name}_total")

    def value(self, name: str) -> float:
        """A gauge, over all its labels."""
        return sum(map(float, re.findall(rf"^{name}{{[^}}]*}} (\S+)", self._text, re.MULTILINE)))

    def buckets(self, name: str) -> dict[float, float]:
        """Of a histogram: how many are at most so much, over all its labels."""
        found: dict[float, float] = {}
        lines = re.findall(rf'^{name}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)', self._text, re.MULTILINE)
        for bound, count in lines:
            found[float(bound)] = found.get(float(bound), 0.0) + float(count)
        return found


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Between two pictures of a histogram, as Prometheus' histogram_quantile finds it. Of nothing: 0."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    wanted = share * max(counts.values(), default=0.0)
    low, under = 0.0, 0.0
    for bound, count in counts.items():
        if wanted and count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - under) / (count - under)
        low, under = bound, count
    return 0.0


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Pod]:
    """Serves when this is entered."""
    arguments = (
        *("--model", f"file://{settings.model}", "--threads", str(settings.threads)),
        *("--max-batch-size", str(settings.rows), "--max-queue-size", str(settings.queue)),
        *("--tokens-per-request", str(settings.tokens_per_request), "--memory-mib", str(settings.memory_mib)),
    )
    async with _started(arguments, {}) as pod:
        yield pod


@asynccontextmanager
async def limited(
    limits: Limits, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Pod]:
    """The same under the limits that an operator would write. arguments: more of `helios serve`; environment:
    more variables."""
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        file = Path(folder) / "limits.json"
        file.write_text(document.to_json(limits), encoding="utf-8")
        async with _started(("--limits", str(file), *arguments), environment or {}) as pod:
            yield pod


@asynccontextmanager
async def _started(arguments: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        ports, log = Path(folder) / "ports.json", Path(folder) / "log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "helios_server.serve", *arguments),
                *("--ports-file", str(ports), "--port", "0", "--control-port", "0", "--metrics-port", "0"),
                *("--http-port", "free", "--offline", "--drain-timeout", "5"),
                stdout=errors,
                stderr=errors,
                env={**os.environ, **environment},
            )
        try:
            yield Pod(process.pid, await _serving(process, ports, log))
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _serving(process: asyncio.subprocess.Process, file: Path, log: Path) -> dict[str, int]:
    """Its ports. RuntimeError with the end of its log when it does not come up."""
    async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
        while process.returncode is None:
            await asyncio.sleep(0.1)
            if not file.exists():
                continue
            ports: dict[str, int] = json.loads(file.read_text())
            async with session.get(f"http://127.0.0.1:{ports['metrics_port']}/readyz") as answer:
                if answer.status == 200:
                    return ports
    raise RuntimeError(f"the pod did not come up: {log.read_text()[-2000:]}")
