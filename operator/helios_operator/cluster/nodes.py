"""What nodes offer: the hardware that a deployment's pods run on, and how many more of them fit.

Called by `observe` with the mirror. It does the scheduler's arithmetic for the rules that HELIOS's users
write (resources, nodeSelector, taints) so that a surge is begun only when it can end; the scheduler has the
last word. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from helios_operator.api.types import Deployment
from helios_operator.cluster import devices, requests
from helios_operator.cluster.kinds import NODE, POD, Key, Object, key_of
from helios_operator.cluster.mirror import Mirror, owner_of
from helios_operator.cluster.quantities import MIB, mib, number
from helios_operator.decide.snapshot import Hardware
from helios_operator.render import containers, labels
from helios_operator.render.accelerator import Accelerator, accelerator, device
from helios_operator.render.merge import said

_CPUID = "feature.node.kubernetes.io/cpu-cpuid"
_VENDOR = "feature.node.kubernetes.io/cpu-model.vendor_id"
_TILES, _PAIRS = ("AMXTILE", "AMXBF16"), ("AVX512BF16", "AVX512VNNI")
"""What the labels of a node say of a processor that multiplies bfloat16: the one or the other, which pods do
not use on Intel's, where float16 is faster.
"""
_STEP_MIB = 256
"""Memory in the identity of a measurement is rounded to this: nodes of one kind differ by a few MiB."""
_CPU_MODEL = (
    "helios.dev/cpu",
    "feature.node.kubernetes.io/cpu-model.name",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
)
"""Labels that say which processor it is, the most exact first."""


@dataclass(frozen=True)
class Room:
    """How many more pods of this deployment fit. `free_mib`: the most memory that one node has left."""

    pods: int
    free_mib: int


def hardware(hd: Deployment, mirror: Mirror) -> Hardware:
    """Of the node that its pods run on; before there is one, of the first that they may run on."""
    asked = accelerator(hd.spec.template)
    node = _home(hd, mirror)
    marks = node["metadata"].get("labels") or {} if node else {}
    allocatable = node.get("status", {}).get("allocatable", {}) if node else {}
    unit = devices.device(asked.resource, marks, allocatable) if asked else None
    memory = unit.memory_mib * asked.count if unit and asked else mib(allocatable.get("memory"))
    limits = _server(hd).get("resources", {}).get("limits", {})
    architecture = node.get("status", {}).get("nodeInfo", {}).get("architecture", "") if node else ""
    return Hardware(
        accelerator=unit.name if unit else None,
        accelerators=asked.count if asked else 0,
        memory_mib=memory - memory % _STEP_MIB,
        cpu=_first(marks, _CPU_MODEL) or architecture or "unknown",
        cores=max(1, int(number(limits.get("cpu")) or number(allocatable.get("cpu")))),
        dtype=_dtype(device(hd.spec.template), marks),
    )


def _dtype(kind: str, marks: Mapping[str, str]) -> str:
    """What `auto` comes to on a node with these labels: the image has the kernels. All pods are told it, so
    that replicas on unlike nodes compute alike."""
    tiles, pairs = (all(marks.get(f"{_CPUID}.{word}") == "true" for word in has) for has in (_TILES, _PAIRS))
    multiplied = tiles or (pairs and marks.get(_VENDOR) != "Intel")
    return "bfloat16" if kind != "cpu" or multiplied else "float16"


def memory_limit_mib(hd: Deployment) -> int | None:
    """What the user's template lets the pod use, where that is what the server spends."""
    if accelerator(hd.spec.template):
        return None
    return mib(_server(hd).get("resources", {}).get("limits", {}).get("memory")) or None


class Load:
    """What all pods have asked for, by node: added up again where a pod came, changed or went, and nowhere
    else."""

    def __init__(self, mirror: Mirror) -> None:
        self._pods: dict[str, dict[Key, Object]] = {}
        self._taken: dict[str, dict[str, float]] = {}
        for pod in mirror.all(POD):
            self._changed(None, pod)
        mirror.tell(POD, self._changed)

    def taken(self, node: str) -> Mapping[str, float]:
        """By resource."""
        known = self._taken.get(node)
        if known is None:
            known = self._taken[node] = {}
            for pod in self._pods.get(node, {}).values():
                for resource, amount in requests.of_pod(pod.get("spec") or {}).items():
                    known[resource] = known.get(resource, 0.0) + amount
        return known

    def waiting(self) -> list[set[str]]:
        """The resources of each pod of ours that has no node yet: it will take the room of one."""
        return [
            set(requests.of_pod(pod.get("spec") or {}))
            for pod in self._pods.get("", {}).values()
            if owner_of(pod) is not None
        ]

    def _changed(self, before: Object | None, after: Object | None) -> None:
        for pod, is_there in ((before, False), (after, True)):
            if pod is None:
                continue
            node = pod.get("spec", {}).get("nodeName") or ""
            pods = self._pods.setdefault(node, {})
            pods.pop(key_of(pod), None)
            if is_there and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                pods[key_of(pod)] = pod
            self._taken.pop(node, None)


def room(hd: Deployment, mirror: Mirror, load: Load, pod_mib: int) -> Room:
    """Beside everything that is there. `pod_mib`: memory that one pod asks for, unless the template says."""
    asked = _asked(hd, pod_mib)
    free = list(_free(hd, mirror, load))
    fits = sum(
        min((int(left.get(r, 0.0) // n) for r, n in asked.items() if n > 0 and left.get(r) != inf), default=0)
        for left in free
    )
    same = {name for name in asked if "/" in name or name == "memory"}
    waiting = sum(1 for wanted in load.waiting() if wanted >= same)
    free_mib = max((int(left.get("memory", 0.0) // MIB) for left in free), default=0)
    return Room(max(0, fits - waiting), free_mib)


def _asked(hd: Deployment, pod_mib: int) -> dict[str, float]:
    """By one pod of the template, its sidecars included; the server asks for its memory where the user says
    nothing of it."""
    template = said(hd.spec.template)
    spec, server = template["spec"], containers.named(template, containers.SERVER)
    if "memory" in requests.of_container(server) or accelerator(hd.spec.template):
        return requests.of_pod(spec)
    others = [container for container in spec.get("containers") or () if container is not server]
    memory = {"resources": {"requests": {"memory": pod_mib * MIB}}}
    return requests.of_pod({**spec, "containers": [*others, server, memory]})


def _free(hd: Deployment, mirror: Mirror, load: Load) -> Iterator[dict[str, float]]:
    """Of each node that its pods may run on, what nobody has asked for."""
    for node in _usable(hd, mirror):
        allocatable = node.get("status", {}).get("allocatable", {})
        left = {requests.PODS: inf} | {name: number(amount) for name, amount in allocatable.items()}
        for resource, amount in load.taken(node["metadata"]["name"]).items():
            left[resource] = left.get(resource, 0.0) - amount
        yield left


def _home(hd: Deployment, mirror: Mirror) -> Object | None:
    pods = mirror.of(POD, (hd.namespace, hd.name))
    serving_first = sorted(pods, key=lambda pod: labels.REVISION not in pod["metadata"]["labels"])
    for name in (pod.get("spec", {}).get("nodeName") for pod in serving_first):
        if name and (node := mirror.get(NODE, "", name)):
            return node
    return min(_usable(hd, mirror), key=lambda node: str(node["metadata"]["name"]), default=None)


def _usable(hd: Deployment, mirror: Mirror) -> Iterator[Object]:
    """Nodes that may take its pods and offer the accelerator at all."""
    spec = said(hd.spec.template)["spec"]
    wanted: Mapping[str, str] = spec.get("nodeSelector") or {}
    asked = accelerator(hd.spec.template)
    for node in mirror.all(NODE):
        marks = node["metadata"].get("labels") or {}
        if (
            all(marks.get(k) == v for k, v in wanted.items())
            and not node.get("spec", {}).get("unschedulable")
            and _tolerated(node, spec.get("tolerations") or ())
            and _offers(node, asked)
        ):
            yield node


def _offers(node: Object, asked: Accelerator | None) -> bool:
    allocatable = node.get("status", {}).get("allocatable", {})
    return asked is None or number(allocatable.get(asked.resource)) >= asked.count


def _tolerated(node: Object, tolerations: Iterable[Mapping[str, Any]]) -> bool:
    hard = [t for t in node.get("spec", {}).get("taints") or () if t.get("effect") != "PreferNoSchedule"]
    return all(any(_tolerates(each, taint) for each in tolerations) for taint in hard)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _server(hd: Deployment) -> Mapping[str, Any]:
    return containers.named(said(hd.spec.template), containers.SERVER)


def _first(marks: Mapping[str, str], names: Iterable[str]) -> str:
    return next((marks[name] for name in names if marks.get(name)), "")
