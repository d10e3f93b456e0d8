"""Applies the CEL rules of a schema (`x-kubernetes-validations`) to an object, wherever they stand.

Called by `api.validation` after the schema itself holds, as an API server does. Transition rules, which
name oldSelf, are skipped where there is no old value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from helios_contract.problems import Problem

from helios_operator.api import cel

Json = dict[str, Any]

_TRANSITION = re.compile(r"\boldSelf\b")


def broken_rules(schema: Json, value: Any, old: Any = None, path: str = "") -> Iterator[Problem]:
    """A problem for each rule that does not hold here or below."""
    yield from _broken(schema, _seen(schema, value), _seen(schema, old), path)


def _seen(schema: Json, value: Any) -> Any:
    """As rules see it. Without what no schema describes: a server does not show it to them, and it may hold
    anything. NUL is another control character to them: for the library a string ends there."""
    if isinstance(value, dict):
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return {}
        return {key: _seen(_field(schema, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_seen(schema.get("items", {}), item) for item in value]
    return value.replace("\0", "\1") if isinstance(value, str) else value


def _field(schema: Json, key: str) -> Json:
    return schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}


def _broken(schema: Json, value: Any, old: Any, path: str) -> Iterator[Problem]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if old is None and _TRANSITION.search(rule["rule"]):
            continue
        outcome = cel.holds(rule["rule"], value, old)
        if not outcome.holds:
            yield _problem(path or "metadata.name", value, rule["message"], outcome.error)
    if isinstance(value, dict):
        for key, item in value.items():
            before = old.get(key) if isinstance(old, dict) else None
            yield from _broken(_field(schema, key), item, before, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _broken(schema.get("items", {}), item, None, f"{path}[{i}]")


def _problem(path: str, value: Any, message: str, error: str) -> Problem:
    """Messages are written as "problem; fix", so that they read well on a server too."""
    problem, _, fix = message.partition("; ")
    problem = problem.removeprefix(f"{path} ")
    if problem.startswith("not ") and isinstance(value, str):
        problem = f"{value!r} is {problem}"
    return Problem(path, f"{problem} ({error})" if error else problem, fix)
