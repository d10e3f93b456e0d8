"""Valid objects that set every field of a spec, for tests to change one thing in."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Json = dict[str, Any]

API_VERSION = "helios.dev/v1alpha1"


def minimal() -> Json:
    """The least that is a HeliosDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": "HeliosDeployment",
        "metadata": {"name": "chat"},
        "spec": {"candidates": [{"name": "small", "uri": "file:///models/small"}]},
    }


def full() -> Json:
    """Every field of a HeliosDeployment's spec that may stand beside the others."""
    return deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": "HeliosDeployment",
            "metadata": {"name": "chat", "namespace": "team-a", "labels": {"team": "a"}},
            "spec": {
                "modelName": "chat",
                "candidates": [
                    {
                        "name": "small",
                        "uri": "hf://acme/small-1b",
                        "revision": "4ab1c0d",
                        "exitLayers": [4, 8],
                        "exits": "builtin://general",
                        "layerBudget": {"min": 4, "max": 12},
                        "trustRemoteCode": False,
                        "weightDtypes": ["auto", "int8", "int4"],
                        "kvCacheDtypes": ["auto", "int8"],
                    },
                    {"name": "large", "uri": "pvc://models/large"},
                ],
                "selection": {"policy": "Pinned", "candidate": "small"},
                "slo": {
                    "ttftMs": 500,
                    "itlMs": 50,
                    "percentile": 95,
                    "minQualityPercent": 90,
                    "minAgreementPercent": 80,
                    "minTaskPercent": 90,
                    "optimizationType": "throughput",
                },
                "workload": {"isl": 512, "osl": 128, "concurrency": 8},
                "limits": {
                    "layerBudget": {"min": 8, "max": 16},
                    "memoryMiB": 1024,
                    "maxBatchSize": 64,
                    "maxQueueSize": 64,
                    "maxContextTokens": 8192,
                },
                "profiling": {
                    "searchStrategy": "rapid",
                    "maxParallelism": 1,
                    "backoffLimit": 1,
                    "activeDeadlineSeconds": 1800,
                    "ttlSecondsAfterFinished": 3600,
                    "historyLimit": 10,
                    "prompts": {"live": {"maxPrompts": 64, "consent": True}},
                    "tasks": {
                        "inline": [
                            {
                                "name": "capital",
                                "prompt": "The capital of France is",
                                "maxTokens": 8,
                                "expect": {
                                    "equals": "4",
                                    "contains": "4",
                                    "regex": "^[0-9]+$",
                                    "number": {"value": 4, "tolerance": 0.5},
                                    "jsonSchema": {"type": "integer"},
                                },
                            }
                        ]
                    },
                    "template": {"spec": {"priorityClassName": "low"}},
                },
                "reassessment": {
                    "trigger": "Confidence",
                    "auditPercent": 5,
                    "interval": "6h",
                    "everyRequests": 150,
                    "minImprovementPercent": 10,
                    "consecutiveSuccessLimit": 2,
                    "cooldown": "1h30m",
                    "confidenceThresholdPercent": 60,
                    "taskProbe": {"every": "10m", "count": 8},
                    "maintenanceWindow": {"schedule": "0 2 * * 1-5", "duration": "4h"},
                    "suspend": False,
                },
                "rollout": {
                    "strategy": "Auto",
                    "progressDeadlineSeconds": 900,
                    "scaleDownDelaySeconds": 120,
                    "revisionHistoryLimit": 0,
                    "paused": False,
                    "analysis": {"interval": "30s", "count": 10, "failureLimit": 2, "autoRollback": True},
                    "drain": {"preStopSeconds": 15, "timeoutSeconds": 300},
                },
                "replicas": 1,
                "service": {
                    "port": 8033,
                    "httpPort": 8000,
                    "tls": {"secretName": "tls", "clientCASecretName": "ca"},
                    "auth": {"secretName": "callers"},
                },
                "modelCache": {"pvcName": "cache", "mountPath": "/models", "readOnly": True},
                "authSecret": {"name": "hub", "key": "TOKEN"},
                "template": {"spec": {"nodeSelector": {"disk": "fast"}}},
            },
        }
    )


def model() -> Json:
    return deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": "HeliosModel",
            "metadata": {"name": "small-1b", "labels": {"task": "chat"}},
            "spec": {
                "uri": "hf://acme/small-1b",
                "revision": "4ab1c0d",
                "exitLayers": [4, 8],
                "exits": "hf://acme/exits",
                "layerBudget": {"min": 4, "max": 12},
                "trustRemoteCode": False,
                "weightDtypes": ["auto", "int8"],
                "kvCacheDtypes": ["auto"],
                "published": {
                    "parametersMillions": 1236,
                    "numLayers": 16,
                    "memoryMiB": 3000,
                    "qualityPercent": 96,
                    "tokensPerSecond": {"accelerator": "NVIDIA-L4", "value": 1400},
                },
            },
        }
    )


def timing_profile() -> Json:
    return deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": "HeliosProfile",
            "metadata": {"name": "t-788bfd8e8961"},
            "spec": {
                "kind": "Timing",
                "timing": {
                    "backbone": {"uri": "hf://acme/small-1b", "revision": "4ab1c0d"},
                    "dtype": "float16",
                    "headKinds": ["bare", "mlp"],
                    "hardware": {
                        "accelerator": "NVIDIA-L4",
                        "accelerators": 1,
                        "memoryMiB": 23034,
                        "cpu": "AMD EPYC",
                        "cores": 8,
                    },
                    "performanceVersion": 3,
                },
            },
        }
    )


def quality_profile() -> Json:
    return deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": "HeliosProfile",
            "metadata": {"name": "q-788bfd8e8961"},
            "spec": {
                "kind": "Quality",
                "quality": {
                    "candidate": {
                        "uri": "hf://acme/small-1b",
                        "revision": "4ab1c0d",
                        "exitsDigest": "sha256:2",
                    },
                    "promptsDigest": "sha256:3",
                },
            },
        }
    )


def tasks_profile() -> Json:
    return deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": "HeliosProfile",
            "metadata": {"name": "k-788bfd8e8961"},
            "spec": {
                "kind": "Tasks",
                "tasks": {
                    "candidate": {
                        "uri": "hf://acme/small-1b",
                        "revision": "4ab1c0d",
                        "exitsDigest": "sha256:2",
                    },
                    "layerBudget": 24,
                    "tasksDigest": "sha256:3",
                    "weightDtype": "int8",
                    "kvCacheDtype": "int8",
                },
            },
        }
    )


def put(obj: Json, path: str, value: Any) -> Json:
    """The object with a value at a path such as spec.candidates[0].uri; `...` takes the field away."""
    *steps, last = _steps(path)
    place: Any = obj
    for step in steps:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return obj


def _steps(path: str) -> list[str | int]:
    words = path.replace("]", "").replace("[", ".").split(".")
    return [int(word) if word.isdigit() else word for word in words]
