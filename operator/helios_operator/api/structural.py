"""What an API server does with a structural schema before it validates: prune, drop nulls, fill in defaults.

Called by `api.validation`; returns a new object and leaves its argument as it was. It must not judge values.
"""

from __future__ import annotations

from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from helios_contract.problems import Problem

Json = dict[str, Any]

_ROOT_FIELDS = ("apiVersion", "kind", "metadata")


def prune_and_default(schema: Json, obj: Json) -> Json:
    """The object as the server would store it, were it valid."""
    root = {key: deepcopy(obj[key]) for key in _ROOT_FIELDS if key in obj}
    body = {key: value for key, value in obj.items() if key not in _ROOT_FIELDS}
    properties = {key: value for key, value in schema["properties"].items() if key not in _ROOT_FIELDS}
    shaped: Json = _shape({**schema, "properties": properties}, body)
    return root | shaped


def unknown_fields(schema: Json, obj: Json) -> list[Problem]:
    """What pruning takes away, each with the field that was probably meant."""
    return _unknown({**schema, "properties": {**schema["properties"], "metadata": _ANYTHING}}, obj, "")


def too_deep(obj: Any, most: int) -> tuple[Any, ...]:
    """The first steps to a value below `most` levels; empty when there is none."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), obj)]
    while waiting:
        steps, value = waiting.pop()
        if len(steps) > most:
            return steps[:_SHOWN_STEPS]
        if isinstance(value, dict):
            waiting += [((*steps, str(key)), below) for key, below in value.items()]
        elif isinstance(value, list):
            waiting += [((*steps, i), below) for i, below in enumerate(value)]
    return ()


_SHOWN_STEPS = 8
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _shape(schema: Json, value: Any) -> Any:
    if isinstance(value, dict):
        return _shape_object(schema, value)
    if isinstance(value, list):
        return [_shape(schema.get("items", {}), item) for item in value]
    if schema.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)  # kubectl writes 1.0 as 1
    return value


def _shape_object(schema: Json, value: Json) -> Json:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return deepcopy(value)
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    shaped = {
        key: _shape(properties.get(key, extra), item)
        for key, item in value.items()
        if item is not None and (key in properties or extra)
    }
    for key, field in properties.items():
        if key not in shaped and "default" in field:
            shaped[key] = _shape(field, deepcopy(field["default"]))
    return shaped


def _unknown(schema: Json, value: Any, path: str) -> list[Problem]:
    if isinstance(value, list):
        items = schema.get("items", {})
        return [found for i, item in enumerate(value) for found in _unknown(items, item, f"{path}[{i}]")]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    problems = []
    for key, item in value.items():
        field = f"{path}.{key}" if path else str(key)
        if key in properties or extra:
            problems += _unknown(properties.get(key, extra), item, field)
        elif properties:
            problems.append(Problem(field, "unknown field, ignored", _suggestion(str(key), list(properties))))
    return problems


def _suggestion(key: str, known: list[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(key.lower(), by_lower, n=1, cutoff=0.7)
    if close:
        return f"did you mean {by_lower[close[0]]}?"
    return "the fields here are " + ", ".join(sorted(known))
