"""One run of a trace: a deployment of HELIOS on this machine, callers in front of it, and what came back.

Called by `__main__`. Everything that HELIOS does is its own doing: this sends traffic, waits and writes down.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios_operator.api.types import HistoryEntry
from helios_operator.decide.snapshot import Snapshot
from helios_operator.local.runtime import Options
from helios_server.models.cache import cache_root

from bench.loop.looping import Loop, looping
from bench.pair.figures import Answer, Change, Played, Run
from examples.demo.traffic import Stream, Traffic

_NAME = "pair"
_PATIENCE_SECONDS = 900.0


@dataclass(frozen=True)
class Phase:
    """Of a trace: so many requests of one kind of text. prompts: in this order, again from the first when
    they end."""

    kind: str
    prompts: Sequence[str]
    requests: int


@dataclass(frozen=True)
class Settings:
    """callers: at once; osl: tokens of an answer; first: prompts for the first choice; min_quality: percent
    of the best candidate; memory_mib: of a pod; every: requests between two reassessments; live: prompts in a
    set."""

    callers: int
    osl: int
    first: Sequence[str]
    min_quality: int
    memory_mib: int
    every: int
    live: int


def deployment(candidates: Mapping[str, Path], settings: Settings) -> dict[str, Any]:
    """Objective quality: of the candidates that keep the promise, the one that predicts the traffic best."""
    return {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": "HeliosDeployment",
        "metadata": {"name": _NAME},
        "spec": {
            "modelName": _NAME,
            "candidates": [
                {"name": name, "uri": f"file://{at}", "weightDtypes": ["auto"], "kvCacheDtypes": ["auto"]}
                for name, at in candidates.items()
            ],
            "slo": {"optimizationType": "quality", "minQualityPercent": settings.min_quality},
            "workload": {"isl": 192, "osl": settings.osl, "concurrency": settings.callers},
            "limits": {"memoryMiB": settings.memory_mib, "maxQueueSize": 256},
            "profiling": {
                "prompts": {
                    "inline": list(settings.first),
                    "live": {"maxPrompts": settings.live, "consent": True},
                }
            },
            "reassessment": {
                "auditPercent": 50,
                "everyRequests": settings.every,
                "minImprovementPercent": 1,
                "cooldown": "10s",
                "consecutiveSuccessLimit": 1,
            },
            "rollout": {
                "scaleDownDelaySeconds": 0,
                "drain": {"preStopSeconds": 0, "timeoutSeconds": 60},
            },
        },
    }


async def drive(
    candidates: Mapping[str, Path], trace: Sequence[Phase], settings: Settings, state: Path
) -> Run:
    """From nothing: the trace begins when the first choice serves. state: a folder of its own."""
    options = Options(volumes=cache_root(), port=0, http=False, command="bench.pair")
    async with looping(deployment(candidates, settings), state, options) as loop:
        traffic = Traffic(loop.address, callers=settings.callers, osl=settings.osl)
        phases = [await _play(phase, traffic, loop) for phase in trace]
        # A pass later: a change that ended with the last answers stands in the history.
        await asyncio.sleep(1)
        changes = _promoted(loop.changes())
    return Run(tuple(phases), tuple(changes))


async def _play(phase: Phase, traffic: Traffic, loop: Loop) -> Played:
    ledger, first, began = traffic.ledger, len(traffic.ledger.streams), time.monotonic()
    decided: list[str] = []
    print(f"{phase.kind}: {phase.requests} requests", file=sys.stderr, flush=True)
    async with traffic.flowing(phase.kind, phase.prompts):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while (answered := len(ledger.streams) - first) < phase.requests:
                _listen(decided, loop.seen(), answered)
                await asyncio.sleep(0.05)
        ended = time.monotonic()
    streams = ledger.streams[first:]
    for error in {stream.error for stream in streams if stream.error}:
        print(f"failed: {error}", file=sys.stderr, flush=True)
    answers = tuple(_answer(stream) for stream in streams if not stream.error)
    return Played(phase.kind, began, ended, answers, len(streams) - len(answers), tuple(decided))


def _listen(decided: list[str], snapshot: Snapshot | None, answered: int) -> None:
    """Keeps what is decided now, unless it was the last that was kept."""
    memory = snapshot.deployment.status.reassessment if snapshot else None
    if memory and memory.decision:
        said = f"{memory.decision.value}/{memory.reason}: {memory.message}"
        if not decided or not decided[-1].endswith(f" {said}"):
            decided.append(f"{answered} {said}")


def _answer(stream: Stream) -> Answer:
    candidate = str(stream.spans[-1]["candidate"])
    return Answer(stream.prompt, candidate, len(stream.output_ids), stream.sent, stream.ended)


def _promoted(history: Sequence[HistoryEntry]) -> list[Change]:
    """What was made before there was a choice is none."""
    to_monotonic = time.monotonic() - time.time()
    return [
        Change(
            kind=entry.kind.value,
            source=entry.from_.candidate,
            target=entry.to.candidate,
            message=entry.message,
            ended=entry.time.timestamp() + to_monotonic,
            seconds=float(entry.seconds),
        )
        for entry in history
        if entry.from_ and entry.result == "Promoted"
    ]
