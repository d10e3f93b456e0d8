"""Prompts that a Quality Job measures on: the texts of a ConfigMap, and the pod that holds a live set.

Called by every runtime's `observe` and `apply`. Live prompts themselves never come here.
"""

from __future__ import annotations

import json

from helios_operator.decide.snapshot import Snapshot


def texts(document: str) -> tuple[str, ...]:
    """A JSON list of prompts, or one prompt per line: as `helios profile --prompts-file` reads a file."""
    if document.lstrip().startswith("["):
        return tuple(str(prompt) for prompt in json.loads(document))
    return tuple(line for line in document.splitlines() if line.strip())


def are_given(prompts_digest: str, snapshot: Snapshot) -> bool:
    """In the spec, and not kept by a pod."""
    return snapshot.prompts is not None and snapshot.prompts.digest == prompts_digest


def holder(prompts_digest: str, snapshot: Snapshot) -> str | None:
    """The pod that keeps the set; any pod that answers when none says so (an older set may still be
    kept)."""
    if not prompts_digest:
        return None
    answering = [pod for r in snapshot.revisions for pod in r.pods if pod.telemetry is not None]
    for pod in answering:
        if pod.telemetry and pod.telemetry.prompts and pod.telemetry.prompts.digest == prompts_digest:
            return pod.name
    return answering[0].name if answering else None
