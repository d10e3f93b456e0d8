"""JSON that somebody else wrote: files that hold an object, and values that must be of a kind.

Called by everything that reads a model's folder. A value that is null counts as absent. Its errors name the
file or the field, what was found and what is expected; it must know of no model.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helios_server.errors import CheckpointError, HeliosError, UnsupportedModelError

LARGEST = 2**31 - 1  # of any size or count in a config
_SHOWN = 60  # characters of a value that is wrong


def read_object(file: Path, fix: str, error: type[HeliosError] = CheckpointError) -> dict[str, Any]:
    """The object in a file. Raises `error`, whose field is the file and whose advice is `fix`."""
    if not file.is_file():
        raise error(str(file), "file is missing", fix)
    try:
        return parse_object(file.read_bytes())
    except (OSError, ValueError) as problem:
        raise error(str(file), f"cannot be read as JSON ({problem})", fix) from problem


def parse_object(content: bytes, *, unique: bool = False) -> dict[str, Any]:
    """The object in a text. unique: refuse a name that stands twice. Raises ValueError."""
    try:
        with NO_COLLECTIONS:
            parsed = json.loads(content, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"expected an object, found {shown(parsed)}")
    return parsed


class _NoCollections:
    """Of garbage, while anybody reads: JSON makes none, looking for it among a million lists takes many times
    as long as reading them, and holds up every thread. The last one out sets the collector going again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._was_on = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._was_on = gc.isenabled()
                gc.disable()
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers and self._was_on:
                gc.enable()


NO_COLLECTIONS = _NoCollections()
"""One, as the collector is: bodies are read on several threads."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' stands twice")
        found[name] = value
    return found


def shown(value: Any) -> str:
    """A value as a message shows it: as JSON has it, and short."""
    text = ""
    try:
        for part in json.JSONEncoder().iterencode(value):
            text += part
            if len(text) > _SHOWN:
                break  # of a megabyte, the rest is not written
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# -- values of config.json -----------------------------------------------------------------------------------


def refuse(field: str, problem: str) -> UnsupportedModelError:
    """The error for a field of config.json, to be raised."""
    return UnsupportedModelError(field, problem, "Check the checkpoint's config.json")


def whole(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive integer; required unless there is a default."""
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value <= LARGEST:
        raise refuse(name, f"expected a positive integer, found {shown(value)}")
    return value


def number(fields: Mapping[str, Any], name: str, default: float | None = None, within: str = "") -> float:
    """A finite number above 0; required unless there is a default. within: the object it stands in, with a
    dot."""
    value = fields.get(name, default)
    if type(value) not in (int, float) or not 0 < value <= float(LARGEST) ** 2:  # nor is NaN
        raise refuse(f"{within}{name}", f"expected a number above 0, found {shown(value)}")
    return float(value)


def flag(fields: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A switch."""
    value = fields.get(name)
    if value is not None and type(value) is not bool:
        raise refuse(name, f"expected true or false, found {shown(value)}")
    return default if value is None else bool(value)
