"""The PodDisruptionBudget: a node drain takes one serving pod at a time.

Called by `apply` in every pass. There is none for a single pod: it would hold up every node drain, and
protect nothing.
"""

from __future__ import annotations

from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, labels, owner

POLICY_V1 = "policy/v1"


def disruption_budget(hd: Deployment, policy_version: str) -> Manifest | None:
    """`policy_version`: the newest that the server offers, policy/v1 or policy/v1beta1. None: delete it if
    it is there."""
    if hd.spec.replicas <= 1:
        return None
    spec: Manifest = {"maxUnavailable": 1, "selector": {"matchLabels": labels.serving(hd.name)}}
    if policy_version == POLICY_V1:
        # A pod that never became ready must not hold up the node.
        spec["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
    metadata = owner.metadata(hd, hd.name)
    return {"apiVersion": policy_version, "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}
