"""Names of the objects that belong to a HeliosDeployment: predictable, and never longer than a label holds.

Used by every module of `render`, and by the cluster's `observe` to find what it reads. It must not make up a
name from anything but its arguments: the same object has the same name in every pass.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 63
"""Characters in a label value, and in the name of a Service, a pod's container or a volume."""
_HASH_CHARACTERS = 8


def revision(deployment: str, number: int) -> str:
    """The Deployment of a revision, and its limits ConfigMap."""
    return fitted(f"{deployment}-{number}")


def replicas_service(deployment: str) -> str:
    """The headless one that clients may use."""
    return fitted(f"{deployment}-replicas")


def pods_service(deployment: str) -> str:
    """The headless one of the operator and of scrapers."""
    return fitted(f"{deployment}-pods")


def control_token(deployment: str) -> str:
    return fitted(f"{deployment}-control")


def prompts(deployment: str) -> str:
    """The ConfigMap that carries the spec's inline prompts to a Job."""
    return fitted(f"{deployment}-inline-prompts")


def tasks(deployment: str) -> str:
    """The ConfigMap that carries the spec's inline tasks to Jobs and pods."""
    return fitted(f"{deployment}-inline-tasks")


def profiling(deployment: str) -> str:
    """The NetworkPolicy of a deployment's Jobs."""
    return fitted(f"{deployment}-profiling")


def volume(kind: str, name: str) -> str:
    """A volume is named by a DNS label; what it mounts may have dots and 253 characters."""
    wanted = f"{kind}-{name}"
    return wanted if re.fullmatch(r"[a-z0-9-]{1,63}", wanted) else fitted(f"{kind}-{_hash(name)}")


def fitted(name: str) -> str:
    """The name itself, or its beginning and a hash of all of it."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - _HASH_CHARACTERS - 1].rstrip('-.')}-{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]
