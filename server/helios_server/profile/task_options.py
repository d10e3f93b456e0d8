"""The options that tasks are asked of: a candidate in a precision at a depth, in the order in which they are
answered.

Called by `command.py`. A Job is told them; for a person they are all depths of all candidates. It must not
load anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helios_contract.serves import AUTO, KV_CACHE_DTYPES, WEIGHT_DTYPES, Precision

from helios_server.errors import InvalidRequest
from helios_server.profile.opened import OpenCandidate

MOST_OPTIONS = 12
"""Whose passes of so many tasks as there may be fit in one result."""
_FIELDS = ("candidate", "layerBudget", "weightDtype", "kvCacheDtype")


@dataclass(frozen=True)
class TaskOption:
    """layer_budget: layers, at least 1."""

    candidate: str
    layer_budget: int
    precision: Precision

    def __str__(self) -> str:
        return f"{self.candidate} at {self.layer_budget} ({self.precision})"


def parse_options(text: str) -> tuple[TaskOption, ...]:
    """Reads `[{"candidate", "layerBudget", "weightDtype", "kvCacheDtype"}, ...]`; the dtypes may be left
    out."""
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise InvalidRequest("options", f"is not JSON ({error})", "Give a JSON list of options") from None
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("options", "is not a list of at least one option", "Give a JSON list")
    if len(rows) > MOST_OPTIONS:
        raise InvalidRequest("options", f"has {len(rows)} options", f"Give at most {MOST_OPTIONS} at once")
    return tuple(_option(f"options[{index}]", row) for index, row in enumerate(rows))


def every_depth(opened: Sequence[OpenCandidate], precisions: Sequence[Precision]) -> tuple[TaskOption, ...]:
    """Full depth of the first candidate in the reference precision first: others are compared with it."""
    found = dict.fromkeys(_all(opened, precisions))
    return tuple(sorted(found, key=lambda option: option != next(iter(found))))


def of_candidates(options: Sequence[TaskOption], opened: Mapping[str, OpenCandidate]) -> None:
    """Refuses an option of no candidate, or at a depth that its model has not."""
    for index, option in enumerate(options):
        candidate = opened.get(option.candidate)
        if candidate is None:
            problem = f"'{option.candidate}' is none of the candidates"
            raise InvalidRequest(f"options[{index}].candidate", problem, f"Use {', '.join(opened)}")
        depth = candidate.checkpoint.config.num_layers
        legal = (*candidate.exit_layers, depth)
        if option.layer_budget not in legal:
            problem = f"{option.layer_budget} is no exit of '{option.candidate}'"
            fix = f"Use one of {', '.join(map(str, legal))}"
            raise InvalidRequest(f"options[{index}].layerBudget", problem, fix)


def _all(opened: Sequence[OpenCandidate], precisions: Sequence[Precision]) -> Iterator[TaskOption]:
    for precision in precisions:
        for each in opened:
            depth = each.checkpoint.config.num_layers
            for layers in (depth, *reversed(each.exit_layers)):
                yield TaskOption(each.candidate.name, layers, precision)


def _option(field: str, row: Any) -> TaskOption:
    if not isinstance(row, dict):
        raise InvalidRequest(field, "is not an object", 'Write {"candidate": ..., "layerBudget": ...}')
    for key in row:
        if key not in _FIELDS:
            problem = "is not a field of an option"
            raise InvalidRequest(f"{field}.{key}", problem, f"Use {', '.join(_FIELDS)}")
    name, layers = row.get("candidate"), row.get("layerBudget")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{field}.candidate", "is not a text", "Name a candidate")
    if type(layers) is not int or layers < 1:
        raise InvalidRequest(f"{field}.layerBudget", f"{layers!r} is not a number of layers", "Give a depth")
    return TaskOption(name, layers, _precision(field, row))


def _precision(field: str, row: Mapping[str, Any]) -> Precision:
    for key, known in (
        ("weightDtype", WEIGHT_DTYPES),
        ("kvCacheDtype", KV_CACHE_DTYPES),
    ):
        if row.get(key, AUTO) not in known:
            problem = f"{row[key]!r} is no precision"
            raise InvalidRequest(f"{field}.{key}", problem, f"Use {', '.join(known)}")
    return Precision(row.get("weightDtype", AUTO), row.get("kvCacheDtype", AUTO))
