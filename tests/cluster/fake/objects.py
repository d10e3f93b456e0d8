"""A HeliosDeployment as a user writes it, and the other objects that a scene begins with."""

from __future__ import annotations

from typing import Any

from helios_operator.cluster.kinds import CLAIM, DEPLOYMENT, NODE, Kind, Object

NAMESPACE = "team-a"
PROMPTS = ["The whale swam on.", "A ship without a crew is only wood.", "Some years ago."]


AS_PUBLISHED = {"weightDtypes": ["auto"], "kvCacheDtypes": ["auto"]}
"""Of a candidate."""


def deployment(name: str = "chat", **spec: Any) -> Object:
    """Two models; nothing changes by itself once the first choice is made."""
    wanted = {
        "candidates": [
            {"name": "deep", "uri": "pvc://models/deep", "exitLayers": [24, 27], **AS_PUBLISHED},
            {"name": "flat", "uri": "pvc://models/flat", **AS_PUBLISHED},
        ],
        "slo": {"minQualityPercent": 30},
        "workload": {"isl": 16, "osl": 16, "concurrency": 4},
        "limits": {"memoryMiB": 1500},
        "profiling": {"prompts": {"inline": PROMPTS}, "maxParallelism": 2},
        "reassessment": {"auditPercent": 1, "everyRequests": 100000},
        "rollout": {"scaleDownDelaySeconds": 0, "drain": {"preStopSeconds": 0, "timeoutSeconds": 1}},
    } | spec
    return of(DEPLOYMENT, name, spec=wanted)


def of(kind: Kind, name: str, **content: Any) -> Object:
    metadata = {"name": name} | ({"namespace": NAMESPACE} if kind.namespaced else {})
    metadata |= content.pop("metadata", {})
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata} | content


def node(name: str = "node-1", **allocatable: str) -> Object:
    room = {"cpu": "8", "memory": "64Gi", "pods": "100"} | allocatable
    status = {
        "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"architecture": "amd64"},
    }
    return of(NODE, name, spec={}, status=status)


def claim(name: str = "models") -> Object:
    return of(CLAIM, name, spec={"accessModes": ["ReadOnlyMany"]})
