"""Copies of what JSON can hold. The server hands out and takes in nothing but copies, thousands a second, and
`copy.deepcopy` takes ten times as long, because it must expect anything."""

from __future__ import annotations

from typing import Any


class Shared(dict[str, Any]):
    """Never changed by anybody, so that no copy is needed: the managedFields, larger than many an object."""


def copied(value: Any) -> Any:
    """Shares no dict and no list with the value, but those that are `Shared`."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    return value
