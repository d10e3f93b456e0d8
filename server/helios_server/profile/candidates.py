"""The candidates that one profiling run is asked about, as they come on the command line.

Called by `command.py`. It reads JSON in the spelling of a HeliosDeployment's `candidates`; it must not open a
file, so that a candidate whose model is missing still has its place in the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helios_server.errors import InvalidRequest

_FIELDS = ("name", "uri", "revision", "exits", "exitLayers")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model and its exit heads. exits: a bundle's uri, None for the model's own head; exit_layers: legal
    depths in layers, empty for all of the bundle's."""

    name: str
    uri: str
    revision: str | None = None
    exits: str | None = None
    exit_layers: tuple[int, ...] = ()


def parse_candidates(text: str) -> tuple[Candidate, ...]:
    """Reads `[{"name", "uri", "revision", "exits", "exitLayers"}, ...]`; name and uri are required."""
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            "candidates", f"is not JSON ({error})", "Give a JSON list of candidates"
        ) from None
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("candidates", "is not a list of at least one candidate", "Give a JSON list")
    candidates = tuple(_candidate(f"candidates[{index}]", row) for index, row in enumerate(rows))
    names = [candidate.name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest("candidates", f"names '{name}' twice", "Give each candidate its own name")
    return candidates


def named_by_hand(
    uri: str, revision: str | None, bundles: Sequence[str], exit_layers: Sequence[int]
) -> tuple[Candidate, ...]:
    """What a person asks for: one model with each of the bundles, or with its own head when there is none."""
    if not bundles:
        return (Candidate("own-head", uri, revision, None, tuple(exit_layers)),)
    return tuple(
        Candidate(bundle, uri, revision, bundle, tuple(exit_layers)) for bundle in dict.fromkeys(bundles)
    )


def _candidate(field: str, row: Any) -> Candidate:
    if not isinstance(row, dict):
        raise InvalidRequest(field, "is not an object", 'Write {"name": ..., "uri": ...}')
    for key in row:
        if key not in _FIELDS:
            raise InvalidRequest(
                f"{field}.{key}", "is not a field of a candidate", f"Use {', '.join(_FIELDS)}"
            )
    return Candidate(
        name=_text(field, row, "name", required=True) or "",
        uri=_text(field, row, "uri", required=True) or "",
        revision=_text(field, row, "revision"),
        exits=_text(field, row, "exits"),
        exit_layers=_layers(field, row.get("exitLayers") or []),
    )


def _text(field: str, row: dict[str, Any], key: str, required: bool = False) -> str | None:
    value = row.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise InvalidRequest(f"{field}.{key}", "is not a text", f'Write "{key}": "..."')
    return value or None


def _layers(field: str, value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(layer) is int and layer > 0 for layer in value)
    if not whole:
        raise InvalidRequest(f"{field}.exitLayers", "is not a list of layers", "Write e.g. [8, 12, 16]")
    return tuple(sorted(set(value)))
