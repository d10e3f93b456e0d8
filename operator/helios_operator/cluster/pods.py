"""A pod as a pass sees it: does it serve, how often did it end, and in whose words does it not come up.

Called by `revisions` and `jobs` with a Pod object of the mirror. It asks nobody and decides nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from helios_operator.api.timestamps import parse_time
from helios_operator.cluster.kinds import Object
from helios_operator.decide.snapshot import PodPhase

_MESSAGE = 500
"""Characters of a pod's own words: they end up in conditions."""
_BACKOFFS = ("CrashLoopBackOff", "RunContainerError")
"""Reasons of a container that ended and is not running now."""


def phase(pod: Object) -> PodPhase:
    if pod["metadata"].get("deletionTimestamp"):
        return PodPhase.TERMINATING
    if pod.get("status", {}).get("phase") == "Failed" or _waits_for(pod) in _BACKOFFS:
        return PodPhase.FAILED
    return PodPhase.RUNNING if is_ready(pod) else PodPhase.PENDING


def is_ready(pod: Object) -> bool:
    """In service: a pod that is going is not, whatever its condition still says."""
    ready = _condition(pod, "Ready").get("status") == "True"
    return ready and not pod["metadata"].get("deletionTimestamp")


def restarts(pod: Object) -> int:
    return sum(int(status.get("restartCount", 0)) for status in _containers(pod))


def started(pod: Object) -> datetime:
    return parse_time(pod["metadata"]["creationTimestamp"])


def address(pod: Object) -> str | None:
    """None while it has none, or none of its containers runs."""
    status = pod.get("status", {})
    return status.get("podIP") if status.get("phase") == "Running" else None


def message(pod: Object) -> str:
    """Why it is not ready: the scheduler's words, the kubelet's, or the process's own last ones."""
    if is_ready(pod):
        return ""
    if words := trouble(pod):
        return words
    if pod.get("status", {}).get("phase") != "Running":
        return "starting"
    return "not ready" if any(c.get("started") for c in _containers(pod)) else "loading the model"


def trouble(pod: Object) -> str:
    """What holds it up, when somebody said so; "" when it is only not done yet."""
    status = pod.get("status", {})
    unscheduled = _condition(pod, "PodScheduled")
    if unscheduled.get("status") == "False":
        return f"{unscheduled.get('reason', 'Unschedulable')}: {unscheduled.get('message', '')}"[:_MESSAGE]
    said = [text for container in _containers(pod) if (text := _words(container))]
    if said:
        return said[0][:_MESSAGE]
    if status.get("phase") == "Failed":
        return f"{status.get('reason', 'Failed')}: {status.get('message', '')}"[:_MESSAGE]
    return ""


def termination(pod: Object, container: str) -> dict[str, Any] | None:
    """How a container ended; None while it has not."""
    for status in _containers(pod):
        if status.get("name") == container:
            ended = status.get("state", {}).get("terminated")
            return dict(ended) if ended else None
    return None


def runs_on(pod: Object) -> bool:
    """Some container of it still runs."""
    return any(status.get("state", {}).get("running") for status in _containers(pod))


def ending(terminated: dict[str, Any]) -> str:
    """The last words of a container, and how it ended."""
    code, reason = terminated.get("exitCode"), terminated.get("reason") or "Error"
    said = str(terminated.get("message") or "").strip().splitlines()
    return f"{said[-1]} ({reason}, exit code {code})" if said else f"{reason}, exit code {code}"


def _words(container: Object) -> str:
    waiting = container.get("state", {}).get("waiting") or {}
    last = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if last and (not waiting or waiting.get("reason") in _BACKOFFS):
        return f"{waiting.get('reason', 'ended')}: {ending(last)}"
    if waiting.get("message"):
        return f"{waiting.get('reason', 'Waiting')}: {waiting['message']}"
    return ""


def _waits_for(pod: Object) -> str:
    return next(
        (r for s in _containers(pod) if (r := s.get("state", {}).get("waiting", {}).get("reason"))), ""
    )


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _condition(pod: Object, kind: str) -> Object:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == kind), {})
