"""The kinds of objects that the operator reads and writes, and where the API server keeps them.

Used by every module of `cluster`. The chart's rights name the same resources; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_operator.render import labels

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Kind:
    """`plural`: the resource, as in a path and in a rule of RBAC."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Without a namespace: of all of them."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


DEPLOYMENT = Kind("helios.dev", "v1alpha1", "heliosdeployments", "HeliosDeployment")
PROFILE = Kind("helios.dev", "v1alpha1", "heliosprofiles", "HeliosProfile")
MODEL = Kind("helios.dev", "v1alpha1", "heliosmodels", "HeliosModel")
REVISION = Kind("apps", "v1", "deployments", "Deployment")
JOB = Kind("batch", "v1", "jobs", "Job")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SECRET = Kind("", "v1", "secrets", "Secret")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENT = Kind("", "v1", "events", "Event")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
BUDGET_V1 = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
BUDGET_V1BETA1 = Kind("policy", "v1beta1", "poddisruptionbudgets", "PodDisruptionBudget")

WATCHED = (DEPLOYMENT, PROFILE, MODEL, REVISION, JOB, POD, SERVICE, NODE)
"""Others are read by name: nobody needs the right to list them."""
LABELLED = (REVISION, JOB, SERVICE)
"""Watched kinds of which only the operator's own are of interest."""
OURS = f"app.kubernetes.io/managed-by={labels.MANAGER}"
"""Label selector of those."""


def key_of(obj: Mapping[str, Any]) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(obj: Mapping[str, Any]) -> int:
    """Resource versions of one server grow: a larger one is newer."""
    return int(obj["metadata"].get("resourceVersion") or 0)
