"""Three Services: one address for clients, a headless one whose name lists the pods behind that address, and
a headless one through which the operator and scrapers find every pod.

Called by `apply`: the first two at first and with every Route, which is nothing but their selector. They must
not select a revision that `decide` did not name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helios_operator.api import ports
from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, containers, labels, names, owner

_H2C, _TLS = "kubernetes.io/h2c", "https"
_NOTHING = 0
"""Revisions count from 1: a selector for this one holds the address while nothing serves yet."""


def client_service(
    hd: Deployment, routed: int | None, *, with_http: bool = True, with_tls: bool = False
) -> Manifest:
    """New connections go to the pods of the routed revision and to no other. with_http, with_tls: whether
    those pods serve OpenAI's API, and speak TLS, as `serves_http` and `serves_tls` tell of their template."""
    listed = [_port("grpc", hd.spec.port, "grpc", _spoken(with_tls))]
    if with_http and hd.spec.http_port is not None:
        # By number: a sidecar of the user's may have a port of this name, too.
        listed.append(_port("http", hd.spec.http_port, ports.HTTP, _TLS if with_tls else "http"))
    return _service(hd, hd.name, {"type": "ClusterIP", "selector": _selector(hd, routed), "ports": listed})


def replicas_service(hd: Deployment, routed: int | None, *, with_tls: bool = False) -> Manifest:
    """The ready pods of the routed revision, each by its own address, for clients that balance by themselves.
    A headless Service maps no ports: clients dial the pods' own. with_tls: as `client_service`."""
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": False,
        "selector": _selector(hd, routed),
        "ports": [_port("grpc", ports.GENERATION, "grpc", _spoken(with_tls))],
    }
    return _service(hd, names.replicas_service(hd.name), spec)


def serves_http(template: Mapping[str, Any]) -> bool:
    """Whether the pods of a revision, which may be of an earlier release, have the port."""
    listed = containers.named(template, containers.SERVER).get("ports") or ()
    return any(port.get("containerPort") == ports.HTTP for port in listed)


def serves_tls(template: Mapping[str, Any]) -> bool:
    """Whether the pods of a revision speak it, whatever the spec has become."""
    return "--tls-cert" in (containers.named(template, containers.SERVER).get("command") or ())


def routed_revision(service: Manifest) -> int | None:
    """What a client Service routes to, read back. None too where somebody made its selector another."""
    selector = service["spec"].get("selector") or {}
    text = str(selector.get(labels.REVISION, ""))
    return (int(text) or None) if text.isdecimal() else None


def pods_service(hd: Deployment) -> Manifest:
    """Every pod of every revision, ready or not: the Control port answers before the model is loaded."""
    listed = [
        _port("grpc", ports.GENERATION, "grpc", _spoken(hd.spec.service.tls is not None)),
        _port("control", ports.CONTROL, "control", _H2C),
        _port("metrics", ports.METRICS, "metrics", "http"),
    ]
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": labels.serving(hd.name),
        "ports": listed,
    }
    return _service(hd, names.pods_service(hd.name), spec)


def endpoint(hd: Deployment) -> str:
    """What `status.endpoint` says."""
    return f"{hd.name}.{hd.namespace}.svc:{hd.spec.port}"


def _selector(hd: Deployment, routed: int | None) -> dict[str, str]:
    return labels.revision(hd.name, routed or _NOTHING)


def _spoken(with_tls: bool) -> str:
    return _TLS if with_tls else _H2C


def _service(hd: Deployment, name: str, spec: Manifest) -> Manifest:
    """An address of each family that the cluster has."""
    metadata = owner.metadata(hd, name, {labels.COMPONENT: labels.SERVER})
    families = {"ipFamilyPolicy": "PreferDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec | families}


def _port(name: str, number: int, target: str | int, protocol: str) -> Manifest:
    return {"name": name, "port": number, "targetPort": target, "protocol": "TCP", "appProtocol": protocol}
