"""The tests' own client of the API server: the operator's, with the few calls that only a kubelet or an
administrator makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import Kind, Object

from tests.chart import chart

NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
BINDING = Kind(
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


async def operator_account(admin: Admin, namespace: str) -> str:
    """The token of an account `helios` with the chart's rights, bound cluster-wide as `helios-NAMESPACE`."""
    role = chart.only_role(chart.render(), "ClusterRole")
    account, name = {"name": "helios", "namespace": namespace}, f"helios-{namespace}"
    await admin.apply(ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    await admin.apply(ROLE, role | {"metadata": {"name": name}})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount"} | account],
    }
    await admin.apply(BINDING, binding)
    return await admin.token(namespace, "helios")


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
