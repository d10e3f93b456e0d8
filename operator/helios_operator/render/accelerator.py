"""The accelerator that a pod asks for: any extended resource in its limits.

Read from the user's template by the cluster's `observe` (does a second pod fit?), by `deployment.py` and by
`job.py` (which device?). It must not know how many are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_operator.render import containers

_CUDA_VENDORS = ("nvidia.com/", "amd.com/")
"""Vendors whose devices torch drives as `cuda`."""
_NATIVE = "kubernetes.io"


@dataclass(frozen=True)
class Accelerator:
    """`count`: devices of `resource` per pod."""

    resource: str
    count: int


def accelerator(template: Mapping[str, Any]) -> Accelerator | None:
    """Of the serving container; with several extended resources, the first by name."""
    limits = containers.named(template, containers.SERVER).get("resources", {}).get("limits", {})
    asked = [Accelerator(name, int(count)) for name, count in sorted(limits.items()) if _is_extended(name)]
    return asked[0] if asked else None


def device(template: Mapping[str, Any]) -> str:
    """What `--device` says. A resource that torch does not know is scheduled for, and computed on the CPU."""
    asked = accelerator(template)
    return "cuda" if asked and asked.resource.startswith(_CUDA_VENDORS) else "cpu"


def without(resources: Mapping[str, Any]) -> dict[str, Any]:
    """A container's resources, less every extended one."""
    return {
        part: {name: amount for name, amount in value.items() if not _is_extended(name)}
        if part in ("limits", "requests")
        else value
        for part, value in resources.items()
    }


def _is_extended(resource: str) -> bool:
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != _NATIVE and not domain.endswith(f".{_NATIVE}")
