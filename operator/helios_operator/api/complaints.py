"""Turns a schema error into a problem with a fix, for people who never read the schema.

Called by `api.validation`. One function per keyword that our schemas use.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from helios_contract.problems import Problem
from jsonschema.exceptions import ValidationError

_NAMES = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
}


def problem_of(error: ValidationError) -> Problem:
    path = path_of(error.absolute_path)
    describe = _COMPLAINTS.get(str(error.validator))
    if describe is None:
        return Problem(path, error.message, "see the field's description in docs/api.md")
    return describe(error, path)


def path_of(steps: Any) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "object"


def _required(error: ValidationError, path: str) -> Problem:
    missing = next(name for name in error.validator_value if name not in error.instance)
    field = missing if path == "object" else f"{path}.{missing}"
    described = error.schema.get("properties", {}).get(missing, {}).get("description")
    return Problem(field, "is missing", f"add it ({_lower(described)})" if described else "add it")


def _type(error: ValidationError, path: str) -> Problem:
    wanted, value = str(error.validator_value), error.instance
    fix = f"write {_NAMES.get(wanted, wanted)}"
    if wanted == "string" and isinstance(value, (int, float)):
        fix = "write it in quotes"
    if wanted == "integer" and isinstance(value, str) and value.isdigit():
        fix = "write it without quotes"
    return Problem(path, f"{_shown(value)} is not {_NAMES.get(wanted, wanted)}", fix)


def _enum(error: ValidationError, path: str) -> Problem:
    allowed = [str(value) for value in error.validator_value]
    by_lower = {value.lower(): value for value in allowed}
    close = get_close_matches(str(error.instance).lower(), by_lower, n=1)
    fix = f"did you mean {by_lower[close[0]]}?" if close else f"use one of {', '.join(allowed)}"
    return Problem(path, f"{_shown(error.instance)} is not one of {', '.join(allowed)}", fix)


def _range(error: ValidationError, path: str) -> Problem:
    low, high = error.schema.get("minimum"), error.schema.get("maximum")
    word = "greater" if error.validator == "maximum" else "less"
    problem = f"{error.instance} is {word} than the {error.validator} of {error.validator_value}"
    if low is not None and high is not None:
        return Problem(path, problem, f"use a value from {low} to {high}")
    return Problem(path, problem, f"use {error.validator_value} or {'more' if low is not None else 'less'}")


def _size(error: ValidationError, path: str) -> Problem:
    keyword, limit = str(error.validator), error.validator_value
    unit = {"L": "characters", "I": "entries", "P": "entries"}[keyword[3]]
    length = len(error.instance)
    if keyword.startswith("min"):
        if length == 0:
            return Problem(
                path, "is empty", f"give it at least {limit} {unit}" if limit > 1 else "fill it in"
            )
        return Problem(path, f"has {length} {unit}", f"give it at least {limit}")
    return Problem(path, f"has {length} {unit}", f"use at most {limit}")


def _format(error: ValidationError, path: str) -> Problem:
    shown = _shown(error.instance)
    match error.validator_value:
        case "date-time":
            return Problem(path, f"{shown} is not a time", "write it as 2026-01-31T12:00:00Z")
        case "quantity":
            return Problem(path, f"{shown} is no quantity", "write a number with a unit, as 4Gi, 1.5 or 500m")
        case "int-or-string":
            return Problem(path, f"{shown} is neither a number nor a name", "write an integer or a string")
    return Problem(path, f"{shown} does not fit {error.validator_value}", "use a smaller value")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


_COMPLAINTS: dict[str, Callable[[ValidationError, str], Problem]] = {
    "required": _required,
    "type": _type,
    "enum": _enum,
    "minimum": _range,
    "maximum": _range,
    "minLength": _size,
    "maxLength": _size,
    "minItems": _size,
    "maxItems": _size,
    "minProperties": _size,
    "maxProperties": _size,
    "format": _format,
}
