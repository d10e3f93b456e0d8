"""Does an answer hold what its task expects? And can that be asked at all, within bounds?

Called by `task_file` for what a person wrote, by profiling Jobs and serving pods for what a model answered.
Patterns run in RE2, whose time is linear; of JSON schemas a part is read that needs no other pattern and no
other document, for so many steps. Nothing that a task or an answer holds may take long, or raise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from helios_contract.tasks import Expectation, Number

_MOST_ANSWER = 16384
"""Characters of an answer that are looked at: more is no answer to a task."""
_STEPS = 200_000
"""Of comparing one answer with a schema: keywords asked, entries and characters looked at."""
_SHOWN = 60

_OPTIONS = re2.Options()
_OPTIONS.max_mem = 1 << 18
_OPTIONS.log_errors = False
_NUMBER = re2.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|\.\d+(?:[eE][+-]?\d{1,3})?", _OPTIONS)
_SIGNS = {"-": -1, "−": -1, "+": 1}


class Unusable(ValueError):
    """A pattern or a schema that cannot be asked. path: within it; fix: what to do."""

    def __init__(self, path: str, problem: str, fix: str) -> None:
        super().__init__(f"{path}: {problem}; {fix}" if path else f"{problem}; {fix}")
        self.path = path
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True)
class Judged:
    """`why`: the first expectation that does not hold; "" when all do."""

    why: str = ""

    @property
    def passes(self) -> bool:
        return not self.why


def judge(expected: Expectation, answer: str) -> Judged:
    """Whether all that is expected holds of the answer, white space around it apart."""
    answer = answer.strip()
    if len(answer) > _MOST_ANSWER:
        return Judged(f"the answer has {len(answer)} characters, {_MOST_ANSWER} are looked at")
    return Judged(next(filter(None, _complaints(expected, answer)), ""))


def _complaints(expected: Expectation, answer: str) -> Iterator[str]:
    if expected.equals is not None and answer != expected.equals.strip():
        yield f"is not {_shown(expected.equals)}"
    if expected.contains is not None and expected.contains not in answer:
        yield f"does not contain {_shown(expected.contains)}"
    if expected.regex is not None and not _matches(expected.regex, answer):
        yield f"does not match {_shown(expected.regex)}"
    if expected.number is not None:
        yield _number_complaint(expected.number, answer)
    if expected.json_schema is not None:
        yield _schema_complaint(expected.json_schema, answer)


# -- patterns ------------------------------------------------------------------------------------------------


def check_pattern(pattern: str) -> None:
    """Unusable: RE2 refuses it."""
    try:
        _compiled(pattern)
    except (re2.error, UnicodeError) as error:
        fix = (
            "write it as https://github.com/google/re2/wiki/Syntax has it: no look-around, no back-references"
        )
        raise Unusable("", f"is no regular expression of RE2 ({_said(error)})", fix) from None


def _matches(pattern: str, text: str) -> bool:
    try:
        return _compiled(pattern).search(text) is not None
    except (re2.error, UnicodeError):
        return False


@cache
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern, _OPTIONS)


def _said(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    return words.decode(errors="replace") if isinstance(words, bytes) else str(words)


# -- numbers -------------------------------------------------------------------------------------------------


def last_number(answer: str) -> float | None:
    """The last number that stands in a text, thousands' commas and a sign before it included; None without
    one. A minus behind a letter, a digit or a bracket joins words, or subtracts."""
    numbers = list(_NUMBER.finditer(answer))
    if not numbers:
        return None
    found = numbers[-1]
    before, earlier = answer[: found.start()][-1:], answer[: found.start()][-2:-1]
    sign = _SIGNS.get(before, 1) if not (earlier.isalnum() or earlier in (")", "]")) else 1
    return sign * float(found.group().replace(",", ""))


def _number_complaint(expected: Number, answer: str) -> str:
    found = last_number(answer)
    if found is None:
        return "has no number"
    low = -math.inf if expected.min is None else expected.min
    high = math.inf if expected.max is None else expected.max
    if expected.value is not None:
        low, high = expected.value - (expected.tolerance or 0), expected.value + (expected.tolerance or 0)
    if not math.isfinite(found):
        return "has a last number that is too large to compare"
    if low <= found <= high:
        return ""
    return f"has {found:g} as its last number, which is {_missed(low, high)}"


def _missed(low: float, high: float) -> str:
    if low == high:
        return f"not {low:g}"
    if math.isinf(high):
        return f"not {low:g} or more"
    if math.isinf(low):
        return f"not {high:g} or less"
    return f"not within {low:g} to {high:g}"


# -- JSON schemas --------------------------------------------------------------------------------------------

_REFERENCES = "#/$defs/"
_ONE = frozenset({"additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"})
"""Keywords that hold a schema."""
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"properties", "dependentSchemas", "$defs"})
_BOUNDS = ("Properties", "Contains", "Items", "Length")
_PLAIN = frozenset(
    {
        *(f"{end}{what}" for end in ("min", "max") for what in _BOUNDS),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("type", "enum", "const", "required", "dependentRequired", "uniqueItems", "pattern", "$ref"),
        *("title", "description", "default", "examples", "$comment", "$schema", "deprecated", "format"),
    }
)
"""Those that hold none; what begins with `title` says nothing about an answer."""
_KNOWN = _ONE | _LISTS | _MAPS | _PLAIN


class _TooManySteps(Exception):
    """A schema asks more of an answer than may be asked."""


_left: ContextVar[list[int]] = ContextVar("_left")
"""Steps that the question under way may still take."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Unusable: it is no JSON schema (2020-12), or has a part that is not read here."""
    try:
        error = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
    except (SchemaError, RecursionError):
        raise Unusable("", "is nested too deep", "write a flatter schema") from None
    if error is not None:
        path = ".".join(str(step) for step in error.absolute_path)
        raise Unusable(path, f"is no JSON schema ({error.message[:200]})", "see https://json-schema.org")
    names = schema.get("$defs", {})
    for path, part in _parts(schema, ""):
        _check_part(path, part, names)


def _parts(schema: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """It and every schema within it, with its path."""
    if not isinstance(schema, Mapping):
        return
    yield path, schema
    for name, value in schema.items():
        at = f"{path}.{name}" if path else name
        if name in _ONE:
            yield from _parts(value, at)
        elif name in _LISTS:
            for index, each in enumerate(value):
                yield from _parts(each, f"{at}[{index}]")
        elif name in _MAPS:
            for key, each in value.items():
                yield from _parts(each, f"{at}.{key}")


def _check_part(path: str, part: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    for name, value in part.items():
        at = f"{path}.{name}" if path else name
        if name not in _KNOWN or (name == "$defs" and path):
            known = f"use {', '.join(sorted(_KNOWN))} ($defs at the top alone)"
            raise Unusable(at, "is not read here", known)
        if name == "$ref" and not _leads_to(value, names):
            fix = "name a schema of $defs as #/$defs/NAME, of letters, digits, - and _"
            raise Unusable(at, f"{_shown(value)} leads nowhere here", fix)
        if name == "pattern":
            try:
                check_pattern(value)
            except Unusable as error:
                raise Unusable(at, error.problem, error.fix) from None


def _leads_to(reference: str, names: Mapping[str, Any]) -> bool:
    """Within this document; by a name that no pointer writes in another way."""
    name = reference.removeprefix(_REFERENCES)
    return name != reference and name in names and name.replace("-", "").replace("_", "").isalnum()


def _schema_complaint(schema: Mapping[str, Any], answer: str) -> str:
    try:
        value = json.loads(answer, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return "is not JSON"
    token = _left.set([_STEPS])
    try:
        error = next(_validator(schema).iter_errors(value), None)
    except (_TooManySteps, RecursionError):
        return f"takes more than {_STEPS} steps to compare with its JSON schema"
    except ArithmeticError:
        return "has a number that cannot be compared with its JSON schema"
    finally:
        _left.reset(token)
    if error is None:
        return ""
    return f"is not of the JSON schema: {error.message[:200]}"


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is too large")
    return value


def _validator(schema: Mapping[str, Any]) -> Any:
    """With no way to fetch anything."""
    return _bounded()(schema, registry=Registry())


@cache
def _bounded() -> Any:
    """jsonschema's own keywords, each counted, but for the two whose time is not bounded by their size."""
    keywords = {name: keyword for name, keyword in Draft202012Validator.VALIDATORS.items() if name in _KNOWN}
    keywords |= {"pattern": _pattern, "uniqueItems": _unique}
    counted = {name: _counted(keyword, name in _PLAIN) for name, keyword in keywords.items()}
    return extend(Draft202012Validator, counted)


def _counted(keyword: Callable[..., Any], is_plain: bool) -> Callable[..., Iterator[ValidationError]]:
    """is_plain: what it holds is compared with the whole of the value; else with its entries, which count
    themselves."""

    def counted(validator: Any, held: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        left = _left.get()
        left[0] -= _size(held) + _size(value) if is_plain else 1 + (_length(held) + _length(value))
        if left[0] < 0:
            raise _TooManySteps
        yield from keyword(validator, held, value, schema) or ()

    return counted


def _size(value: Any) -> int:
    """Entries of all its lists and maps, characters of its texts."""
    if isinstance(value, dict):
        return 1 + sum(len(key) + _size(each) for key, each in value.items())
    if isinstance(value, list):
        return 1 + sum(map(_size, value))
    return 1 + _length(value)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (dict, list, str)) else 0


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f"{_shown(value)} does not match {_shown(pattern)}")


def _unique(_: Any, wanted: bool, value: Any, __: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(value, list) and len({_canonical(each) for each in value}) < len(value):
        yield ValidationError(f"{_shown(value)} has an entry twice")


def _canonical(value: Any) -> str:
    """The same text for equal JSON: 1 is 1.0, true is not 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return f"[{','.join(map(_canonical, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    return json.dumps(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
