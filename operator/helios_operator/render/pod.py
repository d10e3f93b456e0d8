"""What every pod of HELIOS is made of, whether it serves or measures: a restricted pod with the models within
reach.

Called by `deployment.py` and `job.py`, which add what is theirs and merge the user's template over it. It
must not name a user's or a group's id: the image says who it runs as, and platforms that assign ids refuse a
pod that picks its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, volumes
from helios_operator.render.installation import Installation

SCRATCH = "/tmp"
CONTROL = "/etc/helios/control"
TOKEN_FILE = f"{CONTROL}/token"


def container(
    hd: Deployment, name: str, command: Sequence[str], claims: Sequence[str], by: Installation
) -> Manifest:
    return {
        "name": name,
        "image": by.server_image,
        "imagePullPolicy": by.image_pull_policy,
        "command": [_literal(word) for word in command],
        "env": _environment(hd),
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            *_cache_mounts(hd),
            *(volumes.claim_mount(claim) for claim in claims),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def spec(
    hd: Deployment, container: Manifest, claims: Sequence[str], extra_volumes: Sequence[Manifest]
) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            *_claim_volumes(hd, claims),
            *extra_volumes,
        ],
    }


def secret_volume(name: str, secret: str) -> Manifest:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}}


def config_volume(name: str, config_map: str, key: str, path: str) -> Manifest:
    return {"name": name, "configMap": {"name": config_map, "items": [{"key": key, "path": path}]}}


def mount(name: str, path: str) -> Manifest:
    return {"name": name, "mountPath": path, "readOnly": True}


def _environment(hd: Deployment) -> list[Manifest]:
    cache, auth = hd.spec.model_cache, hd.spec.auth_secret
    environment: list[Manifest] = [
        _field("POD_NAME", "metadata.name"),
        _field("POD_NAMESPACE", "metadata.namespace"),
        _field("NODE_NAME", "spec.nodeName"),
        # Without it torch starts a thread for every core of the node, whatever the pod may use.
        {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "HOME", "value": SCRATCH},
        {"name": "HELIOS_CACHE", "value": f"{SCRATCH}/helios"},
        {"name": "HF_HOME", "value": cache.mount_path if cache else f"{SCRATCH}/huggingface"},
        {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
    ]
    if cache and cache.read_only:
        environment.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if auth:
        reference = {"secretKeyRef": {"name": auth.name, "key": auth.key}}
        environment.append({"name": "HF_TOKEN", "valueFrom": reference})
    return environment


def _field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _cache_mounts(hd: Deployment) -> list[Manifest]:
    cache = hd.spec.model_cache
    if cache is None:
        return []
    name = volumes.claim_volume(cache.pvc_name)["name"]
    return [{"name": name, "mountPath": cache.mount_path, "readOnly": cache.read_only}]


def _claim_volumes(hd: Deployment, claims: Sequence[str]) -> list[Manifest]:
    """The model cache may be one of the candidates' claims: one volume, two mounts."""
    cache = hd.spec.model_cache
    every = sorted({*claims, cache.pvc_name} if cache else set(claims))
    return [volumes.claim_volume(claim, read_only=claim != _writable_claim(hd)) for claim in every]


def _writable_claim(hd: Deployment) -> str | None:
    cache = hd.spec.model_cache
    return cache.pvc_name if cache and not cache.read_only else None


def _literal(word: str) -> str:
    """The kubelet expands $(NAME) in a command; a user's text is not one of its names."""
    return word.replace("$(", "$$(")
