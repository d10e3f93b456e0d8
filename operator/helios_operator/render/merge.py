"""The user's partial PodTemplateSpec, merged onto ours as `kubectl patch` would: strategically.

Called by `deployment.py` and `job.py`. Maps are merged, lists of things with a name are merged by that name,
every other list and value is replaced, null removes. It does not judge what the user writes: the API server
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = {
    "containers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""The merge keys of Kubernetes' API, by field. Within a pod template a field's name is enough."""

_OUR_LABELS = "helios.dev/"
"""Selectors count on them."""

_WHOLE = {"env", "volumes"}
"""Items of which only one source may be set (value or valueFrom; one kind of volume): an item replaces its
namesake."""


def pod_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """What a user's template may say of pods: labels, annotations and the spec; names and the like are not
    theirs."""
    metadata = template.get("metadata") or {}
    given = metadata.get("labels") or {}
    labels = {name: value for name, value in given.items() if not name.startswith(_OUR_LABELS)}
    parts = {"labels": labels, "annotations": metadata.get("annotations")}
    return {
        "metadata": {part: value for part, value in parts.items() if value},
        "spec": template.get("spec") or {},
    }


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A new map; neither argument is changed."""
    result = dict(base)
    for field, value in patch.items():
        if value is None:
            result.pop(field, None)
        elif isinstance(value, Mapping):
            result[field] = merged(_map(result.get(field)), value)
        elif field in _KEYS and isinstance(value, Sequence) and not isinstance(value, str):
            result[field] = _merged_list(field, result.get(field) or [], value)
        else:
            result[field] = value
    return result


def _merged_list(field: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """Items of the base in their order, then what is new in the patch's."""
    key = _KEYS[field]
    items = {item[key]: item for item in base}
    for item in patch:
        known = {} if field in _WHOLE else items.get(item.get(key), {})
        items[item.get(key)] = merged(known, item)
    return list(items.values())


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
