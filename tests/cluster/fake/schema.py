"""What the server knows of the shape of an object: which lists are maps, and which fields its CRDs declare.

Used by `fields` and `store`. Of built-in kinds it knows the lists that HELIOS writes; of HELIOS's kinds, what
the repository's CRDs say. A test takes fields away to have the CRDs of an older release.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from helios_operator.cluster.kinds import Kind

from tests.cluster.fake.plain import copied

CRDS = Path(__file__).parents[3] / "crds"
SET: Literal["set"] = "set"
ListKind = tuple[str, ...] | Literal["set"] | None
"""The keys of a list that is a map; a set; None: replaced as a whole."""

_LISTS: dict[str, ListKind] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "finalizers": SET,
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_ATOMIC = ("selector", "nodeSelector", "podSelector", "namespaceSelector")
"""Maps that are replaced as a whole."""


@functools.cache
def _crds() -> str:
    """As JSON: without what YAML shares between places, and read again for each server in no time."""
    return json.dumps([yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))])


class Schema:
    def __init__(self) -> None:
        self._declared: dict[str, dict[str, Any]] = {
            crd["spec"]["names"]["plural"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            for crd in json.loads(_crds())
        }

    def __deepcopy__(self, _: object) -> Schema:
        """There is one of a server; what is copied of the server keeps to it."""
        return self

    def is_custom(self, kind: Kind) -> bool:
        return kind.plural in self._declared

    def forget(self, kind: Kind, *path: str) -> None:
        """The CRD of an older release, that did not have this field yet."""
        *parents, name = path
        about = self._at(kind, *parents)
        del about.get("items", about)["properties"][name]

    def list_kind(self, kind: Kind, path: tuple[str, ...]) -> ListKind:
        """Of the list at a path of field names."""
        if self.is_custom(kind) and path[0] != "metadata":
            about = self._at(kind, *path)
            match about.get("x-kubernetes-list-type"):
                case "map":
                    return tuple(about["x-kubernetes-list-map-keys"])
                case "set":
                    return SET
            return None
        if path[-1] == "ports":
            return ("containerPort", "protocol") if "containers" in path else _service_ports(kind)
        return _LISTS.get(path[-1])

    def is_atomic(self, path: tuple[str, ...]) -> bool:
        return bool(path) and path[-1] in _ATOMIC

    def pruned(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        """Without the fields that no schema declares, and with the defaults of the others."""
        if not self.is_custom(kind):
            return copied(obj)
        about = self._declared[kind.plural]["properties"]
        kept = {key: copied(obj[key]) for key in ("apiVersion", "kind", "metadata") if key in obj}
        return kept | {key: _pruned(obj[key], about[key]) for key in ("spec", "status") if key in obj}

    def undeclared(self, kind: Kind, obj: dict[str, Any]) -> list[str]:
        """The fields that pruning would take, as `.status.active.depth`."""
        if not self.is_custom(kind):
            return []
        about = self._declared[kind.plural]["properties"]
        return [
            path
            for key in ("spec", "status")
            if key in obj
            for path in _undeclared(obj[key], about[key], f".{key}")
        ]

    def _at(self, kind: Kind, *path: str) -> dict[str, Any]:
        about = self._declared[kind.plural]
        for name in path:
            while about.get("type") == "array":
                about = about["items"]
            about = about.get("properties", {}).get(name) or about.get("additionalProperties") or {}
            about = about if isinstance(about, dict) else {}
        return about


def _service_ports(kind: Kind) -> ListKind:
    return ("port", "protocol") if kind.name == "Service" else None


def _pruned(value: Any, about: dict[str, Any]) -> Any:
    if about.get("x-kubernetes-preserve-unknown-fields"):
        return copied(value)
    if isinstance(value, list):
        return [_pruned(item, about.get("items") or {}) for item in value]
    if not isinstance(value, dict):
        return value
    properties, others = about.get("properties") or {}, about.get("additionalProperties")
    if others is not None:
        return {key: _pruned(item, others if isinstance(others, dict) else {}) for key, item in value.items()}
    kept = {key: _pruned(item, properties[key]) for key, item in value.items() if key in properties}
    missing = {
        key: copied(each["default"])
        for key, each in properties.items()
        if "default" in each and key not in kept
    }
    return kept | {key: _pruned(item, properties[key]) for key, item in missing.items()}


def _undeclared(value: Any, about: dict[str, Any], path: str) -> list[str]:
    if about.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        keys = about.get("x-kubernetes-list-map-keys")
        names = [_item(item, keys, index) for index, item in enumerate(value)]
        found = zip(value, names, strict=True)
        return [
            each for item, name in found for each in _undeclared(item, about.get("items") or {}, path + name)
        ]
    if not isinstance(value, dict) or about.get("additionalProperties") is not None:
        return []
    properties = about.get("properties") or {}
    below = [
        each
        for key, item in value.items()
        if key in properties
        for each in _undeclared(item, properties[key], f"{path}.{key}")
    ]
    return [f"{path}.{key}" for key in value if key not in properties] + below


def _item(item: Any, keys: list[str] | None, index: int) -> str:
    """As the server names an item: `[name="a"]`, or by its place."""
    if not keys:
        return f"[{index}]"
    return "[" + ",".join(f'{key}="{item.get(key)}"' for key in keys) + "]"
