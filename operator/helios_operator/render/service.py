"""Two Services: one address for clients, and a headless one through which the operator and scrapers find
every pod.

Called by `apply`: the client Service at first and with every Route, which is nothing but its selector. It
must not select a revision that `decide` did not name.
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
    listed = [_port("grpc", hd.spec.port, "grpc", _TLS if with_tls else _H2C)]
    if with_http and hd.spec.http_port is not None:
        # By number: a sidecar of the user's may have a port of this name, too.
        listed.append(_port("http", hd.spec.http_port, ports.HTTP, _TLS if with_tls else "http"))
    selector = labels.revision(hd.name, routed or _NOTHING)
    return _service(hd, hd.name, {"type": "ClusterIP", "selector": selector, "ports": listed})


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
        _port("grpc", ports.GENERATION, "grpc", _TLS if hd.spec.service.tls else _H2C),
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


def _service(hd: Deployment, name: str, spec: Manifest) -> Manifest:
    """An address of each family that the cluster has."""
    metadata = owner.metadata(hd, name, {labels.COMPONENT: labels.SERVER})
    families = {"ipFamilyPolicy": "PreferDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec | families}


def _port(name: str, number: int, target: str | int, protocol: str) -> Manifest:
    return {"name": name, "port": number, "targetPort": target, "protocol": "TCP", "appProtocol": protocol}
