"""What one unit of an extended resource is, as far as the labels of its node tell: its name and its memory.

Called by `nodes`. A slice, a partition and a share are other hardware than the card that they are part of, so
none of them has the card's name and memory. What the labels do not tell is unknown, and nothing is put in its
place: the node's memory is not the accelerator's.

The labels are those of NVIDIA's GPU feature discovery, of AMD's node labeller, of Intel's plugin and its node
feature rules, and, for names alone, GKE's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from helios_operator.cluster.quantities import MIB, number

Labels = Mapping[str, str]
Amounts = Mapping[str, object]

_NVIDIA, _AMD, _INTEL = "nvidia.com/", "amd.com/", "gpu.intel.com/"
_CARD = "nvidia.com/gpu"
_SHARED, _SHARE_OF = ".shared", "-SHARED"
"""Of a resource that the device plugin renames, and of the product where it does not."""
_PARTITION = re.compile(r"[a-z]+_nps\d+")
_WHOLE = "spx_nps1"
"""How AMD calls a card that is not partitioned."""
_VRAM = re.compile(r"(\d+)([MGT])")
_UNITS_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_INTEL_CARDS = ("i915", "xe")
_GKE = ("cloud.google.com/gke-accelerator", "cloud.google.com/gke-gpu-partition-size")


@dataclass(frozen=True)
class Device:
    """`memory_mib` 0: not known."""

    name: str
    memory_mib: int = 0


def device(resource: str, labels: Labels, offered: Amounts) -> Device:
    """One of `resource`. `offered`: what the node has of each resource."""
    if resource.startswith(_NVIDIA):
        return _nvidia(resource, labels, offered)
    if resource.startswith(_AMD):
        return _amd(resource, labels)
    if resource.startswith(_INTEL):
        return _intel(resource, labels, offered)
    return Device(resource)


def _nvidia(resource: str, labels: Labels, offered: Amounts) -> Device:
    """Each resource has labels of its own: `nvidia.com/gpu.memory` is of a whole card, or of a slice where
    all cards of the node are cut alike (strategy `single`), and `nvidia.com/mig-1g.10gb.memory` of a slice
    where they are not (`mixed`)."""
    unit = resource.removesuffix(_SHARED)
    memory, replicas = (_number(labels.get(f"{unit}.{what}")) for what in ("memory", "replicas"))
    name = _nvidia_name(unit, labels)
    if not _is_shared(resource, replicas, offered):
        return Device(name, memory)
    share = name if name.endswith(_SHARE_OF) else name + _SHARE_OF
    return Device(share, memory // replicas if replicas else 0)


def _nvidia_name(unit: str, labels: Labels) -> str:
    if product := labels.get(f"{unit}.product"):
        return product
    card = labels.get(f"{_CARD}.product", "").removesuffix(_SHARE_OF)
    profile = unit.removeprefix(f"{_NVIDIA}mig-")
    if card and profile != unit:
        return f"{card}-MIG-{profile}"
    return "-".join(labels[name] for name in _GKE if labels.get(name)) or unit


def _is_shared(resource: str, replicas: int, offered: Amounts) -> bool:
    """By time or by MPS: `replicas` pods have one between them. Where shares have a resource of their own,
    the one without that name is not shared."""
    return resource.endswith(_SHARED) or (replicas > 1 and not number(offered.get(resource + _SHARED)))


def _amd(resource: str, labels: Labels) -> Device:
    """The labeller tells of all devices of a node at once; where they differ, or are another partition than
    the one asked for, it does not say which has how much."""
    alike = labels.get("amd.com/compute-memory-partition", "")
    named = _PARTITION.fullmatch(resource.removeprefix(_AMD))
    partition = named[0] if named else alike
    name = _only("gpu.product-name", labels) or f"{resource}{_dashed(_only('gpu.device-id', labels))}"
    vram = _VRAM.match(_only("gpu.vram", labels)) if partition == alike else None
    memory = int(vram[1]) * _UNITS_MIB[vram[2]] if vram else 0
    return Device(name if partition in ("", _WHOLE) else f"{name}-{partition}", memory)


def _only(what: str, labels: Labels) -> str:
    """The value that all devices of the node share, in each of the labeller's spellings: `amd.com/gpu.vram:
    64G`, and before that `beta.amd.com/gpu.vram.64G: 1`, whose value is a count."""
    for prefix in (_AMD, f"beta.{_AMD}"):
        if value := labels.get(prefix + what):
            return value
    plain, counts = (name.removeprefix("beta.") for name in labels), f"{_AMD}{what}."
    values = {name.removeprefix(counts) for name in plain if name.startswith(counts)}
    return values.pop() if len(values) == 1 else ""


def _intel(resource: str, labels: Labels, offered: Amounts) -> Device:
    """`memory.max` is of all cards of the node, in bytes; a card may be offered to several pods."""
    units = int(number(offered.get(resource)))
    is_card = resource.removeprefix(_INTEL) in _INTEL_CARDS
    memory = int(number(labels.get(f"{_INTEL}memory.max"))) // MIB // units if is_card and units else 0
    return Device(labels.get(f"{_INTEL}product") or resource, memory)


def _number(text: str | None) -> int:
    """A whole number, as labels have it; 0 for anything else."""
    return int(text) if text and text.isdecimal() else 0


def _dashed(text: str) -> str:
    return f"-{text}" if text else ""
