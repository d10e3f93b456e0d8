"""Who may reach which port: clients the Generation port and HTTP, the operator and the deployment's Jobs the
Control port.

Called by `apply` where the installation wants policies. Ingress only: where models are fetched from is the
user's business. The kubelet's probes come from the pod's own node, which a policy never stops.
"""

from __future__ import annotations

from helios_operator.api import ports
from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, labels, names, owner
from helios_operator.render.installation import Installation

_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def server_policy(hd: Deployment, by: Installation) -> Manifest:
    clients = [ports.GENERATION, *([ports.HTTP] if hd.spec.serves_http else [])]
    ingress = [
        *(_rule(port, _namespaces(by.client_namespaces)) for port in clients),
        _rule(ports.CONTROL, [_operator(by), {"podSelector": {"matchLabels": labels.profiling(hd.name)}}]),
        _rule(ports.METRICS, _namespaces(by.metrics_namespaces)),
    ]
    return _policy(hd, hd.name, labels.serving(hd.name), ingress)


def job_policy(hd: Deployment) -> Manifest:
    """Nobody speaks to a Job."""
    return _policy(hd, names.profiling(hd.name), labels.profiling(hd.name), [])


def _policy(hd: Deployment, name: str, selected: dict[str, str], ingress: list[Manifest]) -> Manifest:
    spec: Manifest = {"podSelector": {"matchLabels": selected}, "policyTypes": ["Ingress"]}
    if ingress:
        spec["ingress"] = ingress
    metadata = owner.metadata(hd, name)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _rule(port: int, peers: list[Manifest]) -> Manifest:
    """Without peers: from everywhere."""
    rule: Manifest = {"ports": [{"port": port, "protocol": "TCP"}]}
    return rule | ({"from": peers} if peers else {})


def _namespaces(allowed: tuple[str, ...]) -> list[Manifest]:
    return [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}} for name in allowed]


def _operator(by: Installation) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: by.operator_namespace}},
        "podSelector": {
            "matchLabels": {
                "app.kubernetes.io/name": "helios-operator",
                "app.kubernetes.io/instance": by.operator_name,
            }
        },
    }
