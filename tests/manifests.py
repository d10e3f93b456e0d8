"""What any manifest of ours must satisfy, whoever rendered it: valid for old and new clusters, and
restricted.

`restricted_violations` states the Pod Security Standard "restricted", and beyond it a read-only root file
system.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
from kubernetes_validate import utils

OLDEST = "1.27"
"""Supported: what the chart takes and the docs name (tests/chart/test_versions.py)."""
NEWEST = kubernetes_validate.latest_version()

utils.schema_contents = functools.cache(utils.schema_contents)
# It reads a version's two megabytes of schemas anew for every object.

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def assert_valid(manifest: Mapping[str, Any]) -> None:
    """No unknown field and no wrong type in the oldest supported and the newest Kubernetes."""
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            name = f"{manifest['kind']} {manifest['metadata']['name']}"
            raise AssertionError(f"{name} in Kubernetes {version}: {where}: {error.message}") from None


def restricted_violations(pod: Mapping[str, Any]) -> list[str]:
    """What of a pod's spec is not restricted; empty when all is."""
    return [*_of_pod(pod), *(found for each in _containers(pod) for found in _of_container(pod, each))]


def _of_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {volume['name']}: {kinds}"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _of_container(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    name, own = container["name"], container.get("securityContext", {})
    context = {**pod.get("securityContext", {}), **own}
    capabilities = own.get("capabilities", {})
    rules = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "capabilities": capabilities.get("drop") == ["ALL"]
        and set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": context.get("runAsNonRoot") is True and context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
    }
    for rule, kept in rules.items():
        if not kept:
            yield f"container {name}: {rule}"


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from pod.get("initContainers", ())
    yield from pod["containers"]
