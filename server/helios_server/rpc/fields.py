"""An object that a client sent, field by field: heeded, taken at a neutral value only, or refused by name.

Read by the doors whose requests have named fields (`openai`, `oip`), each with its own lists. Every error
names the field. It must know of no field but those of which there is one answer a request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helios_server.errors import InvalidRequest
from helios_server.models.json_file import shown

_NO_NAME = '""'
"""How a name that is empty is named."""
_ONE_ANSWER = "Send as many requests as you want answers: they share the batch"
_FIXES = dict.fromkeys(("n", "best_of", "num_return_sequences"), _ONE_ANSWER)


@dataclass(frozen=True)
class Neutral:
    """Values that ask for nothing. A null is one for every field."""

    values: tuple[Any, ...] = ()
    any_of: tuple[type, ...] = ()
    """Types of which any value will do: it can make no difference to the answer."""

    def admits(self, value: Any) -> bool:
        return value is None or type(value) in self.any_of or any(_same(value, each) for each in self.values)

    def __str__(self) -> str:
        kinds = {str: "a string", bool: "true or false", int: "a whole number"}
        return " or ".join([*map(shown, self.values), *(kinds[kind] for kind in self.any_of), "null"])


def _same(value: Any, other: Any) -> bool:
    """As JSON has it: true is not 1, but 0.0 is 0."""
    numbers = {int, float}
    alike = type(value) is type(other) or {type(value), type(other)} <= numbers
    return alike and value == other


class Fields:
    """An object of a request, read field by field. A null is an absent field.

    within: the path of the object, with a dot, empty for the body. Raises InvalidRequest, naming the field.
    """

    def __init__(self, given: Mapping[str, Any], within: str = "") -> None:
        self._given = {name: value for name, value in given.items() if value is not None}
        self._within = within

    def admit(self, heeded: frozenset[str], neutral: Mapping[str, Neutral]) -> None:
        """Refuses what is neither heeded nor neutral."""
        for name in self._given.keys() - heeded:
            if name not in neutral:
                known = ", ".join(sorted({*heeded, *neutral}))
                raise self.wrong(name, "is not known here", f"Leave it out; known are {known}")
            if not neutral[name].admits(self._given[name]):
                problem = f"{shown(self._given[name])} asks for something that this server does not do"
                raise self.wrong(name, problem, _FIXES.get(name, f"Leave it out, or give {neutral[name]}"))

    def raw(self, name: str) -> Any:
        return self._given.get(name)

    def has(self, name: str) -> bool:
        return name in self._given

    def text(self, name: str) -> str:
        """ "" when absent."""
        return self._text(name, self._given.get(name, ""))

    def texts(self, name: str) -> tuple[str, ...]:
        """One string, or an array of them; empty when absent."""
        value = self._given.get(name, [])
        listed = value if isinstance(value, list) else [value]
        return tuple(self._text(name, each) for each in listed)

    def whole(self, name: str) -> int | None:
        """5.0 is whole, too."""
        value = self._given.get(name)
        return None if value is None else self._whole(name, value)

    def wholes(self, name: str) -> tuple[int, ...]:
        value = self._given.get(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, f"{shown(value)} is no array", "Give an array of whole numbers")
        return tuple(self._whole(name, each) for each in value)

    def number(self, name: str) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not _finite(value):
            raise self.wrong(name, f"{shown(value)} is no number", "Give a number")
        return float(value)

    def flag(self, name: str) -> bool:
        """False when absent."""
        value = self._given.get(name, False)
        if type(value) is not bool:
            raise self.wrong(name, f"{shown(value)} is neither true nor false", "Give one of them")
        return value

    def object(self, name: str) -> Fields:
        """An empty one when absent."""
        value = self._given.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, f"{shown(value)} is no object", "Give an object")
        return Fields(value, f"{self._within}{name}.")

    def objects(self, name: str) -> Sequence[Fields]:
        value = self._given.get(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            problem = "is missing" if value is None else f"{shown(value)} is no array of objects"
            raise self.wrong(name, problem, "Give an array of objects")
        return [Fields(each, f"{self._within}{name}[{index}].") for index, each in enumerate(value)]

    def wrong(self, name: str, problem: str, fix: str) -> InvalidRequest:
        """To be raised."""
        return InvalidRequest(f"{self._within}{name or _NO_NAME}", problem, fix)

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, f"{shown(value)} is no string", "Give a string")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.wrong(name, "holds half of a surrogate pair", "Give whole characters") from None
        return value

    def _whole(self, name: str, value: Any) -> int:
        if type(value) is float and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise self.wrong(name, f"{shown(value)} is no whole number", "Give a whole number")
        return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
