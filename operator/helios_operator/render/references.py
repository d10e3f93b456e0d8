"""The Secrets and ConfigMaps that a HeliosDeployment's pods and Jobs cannot start without, each by the field
that names it.

Called by the cluster's pass, which looks whether they are there. Those of `service` have rules of their own
(`secrets.py`); what the operator makes itself is not among them. It reads a spec and no cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helios_operator.api.types import Deployment

_NAMED_BY = {
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secret": "Secret",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}
"""Fields of a pod that name an object, wherever they stand: volumes, projections, environments."""


@dataclass(frozen=True)
class Reference:
    """`kind`: Secret | ConfigMap; `keys`: that it must hold, beside whatever it holds."""

    field: str
    kind: str
    name: str
    keys: tuple[str, ...] = ()


def needed(hd: Deployment) -> Iterator[Reference]:
    """In the order of the spec; what is optional is not needed."""
    if auth := hd.spec.auth_secret:
        yield Reference("spec.authSecret", "Secret", auth.name, (auth.key,))
    yield from _within(hd.spec.template.get("spec"), "spec.template.spec")
    yield from _within(hd.spec.profiling.template.get("spec"), "spec.profiling.template.spec")


def _within(value: Any, path: str) -> Iterator[Reference]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            at = f"{path}.{key}"
            if key in _NAMED_BY and isinstance(below, Mapping):
                yield from _reference(below, at, _NAMED_BY[key])
            yield from _within(below, at)
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            yield from _within(below, f"{path}[{index}]")


def _reference(source: Mapping[str, Any], path: str, kind: str) -> Iterator[Reference]:
    name = source.get("name") or source.get("secretName")
    if not name or source.get("optional"):
        return
    items = [item["key"] for item in source.get("items") or () if isinstance(item, Mapping) and "key" in item]
    yield Reference(path, kind, str(name), (*([source["key"]] if "key" in source else ()), *items))
