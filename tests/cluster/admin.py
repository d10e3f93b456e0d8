"""The tests' own client of the API server: the operator's, with the few calls that only a kubelet or an
administrator makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import Kind, Object

from tests.chart import chart

NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
CRD = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
API_SERVICE = Kind("apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False)
VOLUME = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)


class Admin(Client):
    async def delete_now(self, kind: Kind, namespace: str, name: str) -> None:
        """As a kubelet ends a pod: without grace."""
        path = kind.path(namespace, name)
        await self._call("DELETE", path, kind, "delete", body={"gracePeriodSeconds": 0})

    async def select(self, kind: Kind, fields: str) -> list[Object]:
        """In all namespaces, by a field selector."""
        answer = await self._call("GET", kind.path(), kind, "list", query=[("fieldSelector", fields)])
        return list(answer["items"])

    async def token(self, namespace: str, account: str) -> str:
        """Of a service account, for an hour."""
        path = ACCOUNT.path(namespace, account, "token")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = await self._call("POST", path, ACCOUNT, "create", body=body)
        return str(answer["status"]["token"])


async def operator_account(admin: Admin, namespace: str, watched: Sequence[str] = ()) -> str:
    """The token of an account `helios` with the rights that the chart gives it: in the namespaces that it
    watches, or in all. Roles and bindings are named `helios-NAMESPACE`."""
    manifests = chart.render({"watch": {"namespaces": list(watched)}})
    account = {"name": "helios", "namespace": namespace}
    await admin.apply(ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    await _grant(admin, CLUSTER_ROLE, CLUSTER_BINDING, manifests, account)
    if watched:
        await _grant(admin, ROLE, BINDING, manifests, account)
    return await admin.token(namespace, "helios")


async def _grant(
    admin: Admin, role: Kind, binding: Kind, manifests: Sequence[Object], account: dict[str, str]
) -> None:
    metadata = {"name": f"helios-{account['namespace']}"}
    if role.namespaced:
        metadata["namespace"] = account["namespace"]
    given = chart.only_role(list(manifests), role.name)
    await admin.apply(role, given | {"metadata": metadata})
    bound = {
        "apiVersion": binding.api_version,
        "kind": binding.name,
        "metadata": metadata,
        "roleRef": {"apiGroup": role.group, "kind": role.name, "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount"} | account],
    }
    await admin.apply(binding, bound)


def as_account(kubeconfig: Path, token: str, target: Path, server: str | None = None) -> Path:
    """A kubeconfig for the same server, or the proxy before it, as the holder of the token."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    if server is not None:
        for cluster in document["clusters"]:
            cluster["cluster"] = {"server": server}
    target.write_text(yaml.safe_dump(document))
    target.chmod(0o600)
    return target
