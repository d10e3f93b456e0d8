"""The accelerator that a pod asks for: any extended resource in its limits.

Read from the user's template by the cluster's `observe` (does a second pod fit?), by `deployment.py` and by
`job.py` (which device?). It must not know how many are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_operator.api.pod_template import is_device
from helios_operator.render import containers, merge

_CUDA_VENDORS = ("nvidia.com/", "amd.com/")
"""Vendors whose devices torch drives as `cuda`."""


@dataclass(frozen=True)
class Accelerator:
    """`count`: devices of `resource` per pod."""

    resource: str
    count: int


def accelerator(template: Mapping[str, Any]) -> Accelerator | None:
    """Of the serving container; with several extended resources, the first by name."""
    limits = containers.named(merge.said(template), containers.SERVER).get("resources", {}).get("limits", {})
    asked = [Accelerator(name, int(count)) for name, count in sorted(limits.items()) if is_device(name)]
    return next((each for each in asked if each.count), None)


def device(template: Mapping[str, Any]) -> str:
    """What `--device` says. A resource that torch does not know is scheduled for, and computed on the CPU."""
    asked = accelerator(template)
    return "cuda" if asked and asked.resource.startswith(_CUDA_VENDORS) else "cpu"


def without(resources: Mapping[str, Any]) -> dict[str, Any]:
    """A container's resources, less every extended one."""
    return {
        part: {name: amount for name, amount in value.items() if not is_device(name)}
        if part in ("limits", "requests") and value
        else value
        for part, value in resources.items()
    }
