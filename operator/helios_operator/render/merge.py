"""The user's partial PodTemplateSpec, merged onto ours as `kubectl patch` would: strategically.

Called by `deployment.py` and `job.py`, and by whoever reads what a template says (`said`). Maps are merged,
lists of things with a key are merged by it, every other list and value is replaced; null removes, `$patch`
deletes or replaces. It expects what `api.pod_template` admitted, and does not judge what the user writes.

Where `kubectl patch` would lose something or write what no server takes, the user's word is kept instead:
two ports of one number, another source of a variable or volume, the content of a map that replaces nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helios_operator.api.pod_template import DIRECTIVE, identity, merge_keys

_OUR_LABELS = "helios.dev/"
"""Selectors count on them."""
_NEEDED = ("containers", "volumes")
_NEEDED_IN_CONTAINERS = ("command", "image", "ports", "volumeMounts")
"""Null of these is taken for absent: without them no pod starts."""
_SOURCES: dict[str, tuple[str, ...]] = {
    "env": ("value", "valueFrom"),
    "resourceClaims": (),
    "valueFrom": (),
    "volumes": (),
}
"""Fields of which one may be set; empty: all but the name."""

Json = Mapping[str, Any]


def said(template: Json) -> dict[str, Any]:
    """What a template says for itself, over nothing: without nulls and directives."""
    return merged({}, pod_template(template))


def pod_template(template: Json) -> dict[str, Any]:
    """What a user's template may say of pods: labels, annotations and the spec; names and the like are not
    theirs."""
    metadata = template.get("metadata") or {}
    given = metadata.get("labels") or {}
    labels = {name: value for name, value in given.items() if not name.startswith((_OUR_LABELS, "$"))}
    parts = {"labels": labels, "annotations": metadata.get("annotations")}
    return {
        "metadata": {part: value for part, value in parts.items() if value},
        "spec": _spec(template.get("spec") or {}),
    }


def merged(base: Json, patch: Json) -> dict[str, Any]:
    """A new map; neither argument is changed."""
    if _says(patch, "delete"):
        return {}
    result = {} if _says(patch, "replace") else dict(base)
    for field, value in patch.items():
        if field == DIRECTIVE or (_says(value, "delete") and field not in base):
            continue
        if value is None:
            result.pop(field, None)
        elif isinstance(value, Mapping):
            result[field] = merged(_without_other_sources(field, _map(result.get(field)), value), value)
        elif field in merge_keys() and _is_list(value):
            result[field] = _merged_list(field, result.get(field) or (), [item for item in value if item])
        else:
            result[field] = _plain(value)
    return result


def _spec(spec: Json) -> dict[str, Any]:
    kept = {field: value for field, value in spec.items() if value is not None or field not in _NEEDED}
    for field in ("containers", "initContainers"):
        if listed := kept.get(field):
            kept[field] = [_container(each) for each in listed if each]
    return kept


def _container(container: Json) -> dict[str, Any]:
    return {f: value for f, value in container.items() if value is not None or f not in _NEEDED_IN_CONTAINERS}


def _merged_list(field: str, base: Sequence[Json], patch: Sequence[Json]) -> list[Any]:
    """Items of the patch in the patch's order, and what else the base has around them, in its own."""
    wanted = [item for item in patch if DIRECTIVE not in item]
    deleted = [item for item in patch if _says(item, "delete")]
    replaces = any(_says(item, "replace") for item in patch)
    kept = [] if replaces else [each for each in base if not any(_means(field, d, each) for d in deleted)]
    if not kept:
        return [merged({}, item) for item in wanted]
    places: list[int | None] = []
    items: list[dict[str, Any]] = []
    for item in wanted:
        place = _place(field, kept, item, wanted)
        if again := [i for i, known in enumerate(items) if identity(field, known) == identity(field, item)]:
            items[again[0]] = merged(_without_other_sources(field, items[again[0]], item), item)
            continue
        known = {} if place is None else kept[place]
        items.append(merged(_without_other_sources(field, known, item), item))
        places.append(place)
    return _interleaved(field, kept, items, places)


def _place(field: str, base: Sequence[Json], item: Json, patch: Sequence[Json]) -> int | None:
    """The item's namesake in the base. A merge key may be that of several items, as 53/TCP and 53/UDP: where
    the patch names more than one of them, each is its own."""
    key = merge_keys()[field].key
    namesakes = [i for i, each in enumerate(base) if each.get(key) == item.get(key)]
    same = [i for i in namesakes if identity(field, base[i]) == identity(field, item)]
    several = len({identity(field, each) for each in patch if each.get(key) == item.get(key)}) > 1
    return next(iter(same or ([] if several else namesakes)), None)


def _means(field: str, pattern: Json, item: Json) -> bool:
    """Whether a deletion is of this item: by all that it says of its identity."""
    keys = merge_keys()[field]
    named = [name for name in keys.identity if name == keys.key or pattern.get(name) is not None]
    return all(pattern.get(name) == item.get(name) for name in named)


def _interleaved(
    field: str, base: Sequence[Json], items: Sequence[dict[str, Any]], places: Sequence[int | None]
) -> list[Any]:
    """As `kubectl` orders them: what only the base has stands before the first item of the patch that it
    preceded there. A variable of the base that the patch's refer to comes before them: the kubelet expands
    only what it has seen."""
    rest = [i for i in range(len(base)) if i not in places]
    referred = [n for n, i in enumerate(rest) if field == "env" and _is_referred_to(base[i], items)]
    first = referred[-1] + 1 if referred else 0
    result = [dict(base[i]) for i in rest[:first]]
    rest = rest[first:]
    for item, place in zip(items, places, strict=True):
        while place is not None and rest and rest[0] < place:
            result.append(dict(base[rest.pop(0)]))
        result.append(item)
    return result + [dict(base[i]) for i in rest]


def _is_referred_to(variable: Json, items: Sequence[Json]) -> bool:
    return any(f"$({variable.get('name')})" in str(item.get("value", "")) for item in items)


def _without_other_sources(field: str, base: Json, patch: Json) -> Json:
    """A variable, and a volume, has one source: that of the patch takes the place of another one."""
    if field not in _SOURCES:
        return base
    every = _SOURCES[field] or {*base, *patch} - {"name", DIRECTIVE}
    given = {name for name in every if patch.get(name) is not None}
    return {name: value for name, value in base.items() if name not in every or name in given or not given}


def _plain(value: Any) -> Any:
    """A value that takes another's place: without nulls and directives."""
    if isinstance(value, Mapping):
        return merged({}, value)
    if _is_list(value):
        return [_plain(each) for each in value if each is not None and DIRECTIVE not in _map(each)]
    return value


def _says(value: Any, directive: str) -> bool:
    return _map(value).get(DIRECTIVE) == directive


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _map(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}
