"""HELIOS's own loop as an arm: a deployment on this machine, as `helios up` serves it, until a trace is over.

Called by `arms`, and by `bench.pair`. What it chooses and changes is its own doing; here it is waited for and
written down. It chooses before the trace begins, on given prompts of the first kind of text, as a deployment
does whose owner gave some, and then on prompts of that kind that came.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios_operator.api.conditions import ConditionType
from helios_operator.api.rows import RowPhase
from helios_operator.api.types import Decision, HistoryEntry
from helios_operator.decide.snapshot import JobPhase, Snapshot
from helios_operator.local.runtime import LocalRuntime, Options

from bench.frontier.subject import Subject
from bench.loop.replay import Answered, Ask, replay
from bench.loop.trace import Arrival

_PATIENCE_SECONDS = 1200.0
_NAME = "loop"
_QUEUE = 2000


@dataclass(frozen=True)
class Asked:
    """Of a deployment. objective: its optimizationType; weights: dtypes to choose from; prompts: given ones;
    callers: requests at a time; audit_percent, every_requests: of its reassessments."""

    objective: str
    weights: Sequence[str]
    memory_mib: int
    min_quality_percent: int
    prompts: Sequence[str]
    callers: int
    audit_percent: int
    every_requests: int

    def deployment(self, subject: Subject) -> dict[str, Any]:
        """The object, as its owner would write it."""
        candidate: dict[str, Any] = {"name": "model", "uri": subject.uri}
        candidate |= {"exits": subject.exits} if subject.exits else {"exitLayers": list(subject.depths[1:])}
        candidate |= {"weightDtypes": list(self.weights), "kvCacheDtypes": ["auto"]}
        spec = {
            "candidates": [candidate],
            "slo": {"optimizationType": self.objective, "minQualityPercent": self.min_quality_percent},
            "workload": {"isl": subject.isl, "osl": subject.osl, "concurrency": self.callers},
            "limits": {"maxQueueSize": _QUEUE} | ({"memoryMiB": self.memory_mib} if self.memory_mib else {}),
            "profiling": {
                "prompts": {"inline": list(self.prompts), "live": {"maxPrompts": 32, "consent": True}}
            },
            # The pace of a trace of minutes; the defaults suit days of it.
            "reassessment": {
                "auditPercent": self.audit_percent,
                "everyRequests": self.every_requests,
                "cooldown": "10s",
                "consecutiveSuccessLimit": 1,
            },
            "rollout": {
                "scaleDownDelaySeconds": 0,
                "drain": {"preStopSeconds": 0, "timeoutSeconds": 60},
            },
        }
        api = {"apiVersion": "helios.dev/v1alpha1", "kind": "HeliosDeployment"}
        return {**api, "metadata": {"name": _NAME}, "spec": spec}


class Loop:
    """One that has chosen and serves."""

    def __init__(self, runtime: LocalRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self.address = runtime.front_address(name)
        self.chose = _told(_history(self.seen())[-1:])

    def seen(self) -> Snapshot | None:
        """What decisions are made of now."""
        return self._runtime.snapshot(self._name)

    async def settle(self, arrivals: Sequence[Arrival], ask: Ask, callers: int) -> None:
        """Answers these requests, and waits until their prompts are measured as the given ones were: what is
        measured next is what a deployment takes that has stood in this traffic for a while."""
        await replay(arrivals, ask, callers, lambda _: None)
        await self._runtime.wait_for(lambda runtime: _knows_traffic(self.seen()), _PATIENCE_SECONDS)

    def changes(self) -> list[HistoryEntry]:
        """After the first choice, oldest first."""
        return [entry for entry in _history(self.seen()) if entry.kind is not Decision.SELECT]


@asynccontextmanager
async def looping(deployment: dict[str, Any], state: Path, options: Options) -> AsyncIterator[Loop]:
    """Serves what it chose when this is entered. Raises RuntimeError where it never will."""
    name = deployment["metadata"]["name"]

    def is_settled(runtime: LocalRuntime) -> bool:
        return _has_chosen(runtime.snapshot(name)) or bool(runtime.hopeless(name))

    async with LocalRuntime([deployment], state, options) as runtime:
        await runtime.wait_for(is_settled, _PATIENCE_SECONDS)
        if why := runtime.hopeless(name):
            raise RuntimeError(f"the deployment does not come up: {'; '.join(why)}")
        yield Loop(runtime, name)


def _has_chosen(snapshot: Snapshot | None) -> bool:
    """And nothing is measured any more that would disturb the trace."""
    if snapshot is None or any(job.phase is JobPhase.RUNNING for job in snapshot.jobs):
        return False
    status = snapshot.deployment.status
    settled = status.active is not None and status.target is None
    ready = any(pod.ready for revision in snapshot.revisions if revision.routed for pod in revision.pods)
    return settled and ready and status.reassessment.last_time is not None


def _knows_traffic(snapshot: Snapshot | None) -> bool:
    """Every candidate is measured on prompts that came, and what follows from it is in effect."""
    if snapshot is None or not _has_chosen(snapshot):
        return False
    pods = [pod.telemetry for revision in snapshot.revisions for pod in revision.pods if pod.telemetry]
    came = {pod.prompts.digest for pod in pods if pod.prompts}
    measured = {row.identity.prompts_digest for row in snapshot.qualities if row.phase is RowPhase.COMPLETE}
    profiled = (c for c in snapshot.deployment.status.conditions if c.type == ConditionType.PROFILED)
    return bool(came & measured) and all(condition.status == "True" for condition in profiled)


def _history(snapshot: Snapshot | None) -> list[HistoryEntry]:
    return sorted(snapshot.deployment.status.history, key=lambda entry: entry.time) if snapshot else []


def _told(entries: Sequence[HistoryEntry]) -> str:
    return entries[-1].message if entries else "what served at the start was the best there was"


def costs(changes: Sequence[HistoryEntry], answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """Each change, with its seconds and the requests that waited for a first token while it was made."""
    now = time.time() - time.monotonic()
    found = []
    for change in changes:
        end, seconds = change.time.timestamp() - now, change.seconds
        waited = [each for each in answered if _waited(each, end - seconds, end)]
        found.append(
            {
                "kind": change.kind.value,
                "layers": change.to.layer_budget,
                "precision": str(change.to.precision),
                "seconds": seconds,
                "requestsThatWaited": len(waited),
                "message": change.message,
                "result": change.result,
            }
        )
    return found


def _waited(each: Answered, start: float, end: float) -> bool:
    return each.stream.sent <= end and each.stream.began >= start
