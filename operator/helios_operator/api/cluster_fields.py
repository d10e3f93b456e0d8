"""The fields that only a cluster can use: `helios up` takes the same file and says which of them it passes
over.

Called by the command for every HeliosDeployment that it is given. The schemas admit these fields
everywhere; nothing is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helios_contract.problems import Problem

_INSTEAD = {
    "spec.template": "processes run on this machine as they are",
    "spec.profiling.template": "profiling runs on this machine as it is",
    "spec.modelCache": "folders under --volumes take the place of claims",
    "spec.authSecret": "log in to the hub on this machine, or set HF_TOKEN",
}


def unused_locally(obj: Mapping[str, Any]) -> list[Problem]:
    """A problem for each such field that is set. None of them keeps the object from being served."""
    return [
        Problem(path, "is for a cluster and not used here", instead)
        for path, instead in _INSTEAD.items()
        if _at(obj, path.split(".")) is not None
    ]


def _at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
