"""Whose an object is: its metadata and the owner references that let the cluster delete it.

Used by every module of `render`, and by the cluster's `apply` for HeliosProfiles. `blockOwnerDeletion` stays
false: setting it needs the right to update finalizers, and nothing here has to be gone before its owner is.
"""

from __future__ import annotations

from collections.abc import Mapping

from helios_operator.api.serialize import API_VERSION
from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, labels

KIND = "HeliosDeployment"


def owner_reference(hd: Deployment, *, controller: bool) -> Manifest:
    """Controller: of what belongs to one HeliosDeployment alone. A HeliosProfile has a reference per user,
    none of them controller."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": hd.name,
        "uid": hd.uid,
        "controller": controller,
        "blockOwnerDeletion": False,
    }


def metadata(
    hd: Deployment,
    name: str,
    extra_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Of an object that the HeliosDeployment controls."""
    document: Manifest = {
        "name": name,
        "namespace": hd.namespace,
        "labels": labels.common(hd.name) | dict(extra_labels or {}),
        "ownerReferences": [owner_reference(hd, controller=True)],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return document
