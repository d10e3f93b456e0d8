"""Precisions as a person or a Job names them: `auto/auto,int8/auto,int8/int8`.

Called by `command.py`, by what it measures with, and by `helios capacity`. It knows the words; whether a
device has a precision, and whether a format holds the weights, is known where a model is loaded.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

from helios_contract.results import LeftOut
from helios_contract.serves import KV_CACHE_DTYPES, WEIGHT_DTYPES, Precision

from helios_server.engine import host_memory
from helios_server.errors import HeliosError, InvalidRequest, OutOfMemoryBudget

_OF_A_PRECISION = ("weight_dtype", "kv_cache_dtype")
"""Fields of errors that say nothing of the others."""
_MOST_SAID = 120
"""Characters: a document is short (`document.LIMIT_BYTES`)."""


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """WEIGHTS/KV, comma-separated, in the order given; none twice. Raises InvalidRequest."""
    found = tuple(_precision(part.strip()) for part in text.split(","))
    for one in found:
        if found.count(one) > 1:
            raise InvalidRequest("precisions", f"names '{one}' twice", "Name each precision once")
    return found


def is_of_precision(error: HeliosError) -> bool:
    """What one precision cannot be had for, be it the format, the device or memory, another may be."""
    return isinstance(error, OutOfMemoryBudget) or error.field in _OF_A_PRECISION


@dataclass
class Omissions:
    """Precisions that cannot be measured while others are."""

    progress: Callable[[str], None]
    _errors: dict[Precision, HeliosError] = field(default_factory=dict)

    def add(self, precision: Precision, error: HeliosError) -> None:
        """Raises what says something of all of them."""
        if not is_of_precision(error):
            raise error
        self.progress(f"{precision} is left out: {error}")
        self._errors[precision] = error.with_traceback(None)  # which would keep what was loaded
        gc.collect()
        host_memory.trim()

    @property
    def named(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(of.weight_dtype, of.kv_cache_dtype, f"{error.field}: {error.problem}"[:_MOST_SAID])
            for of, error in self._errors.items()
        )

    @property
    def first(self) -> HeliosError:
        """What to raise where nothing is left to be measured."""
        return next(iter(self._errors.values()))


def _precision(text: str) -> Precision:
    weights, separator, kept = text.partition("/")
    if not separator:
        problem = f"'{text}' is no pair of weights and keys and values"
        raise InvalidRequest("precisions", problem, "Write WEIGHTS/KV, for example int8/auto")
    for word, words, what in (
        (weights, WEIGHT_DTYPES, "weights"),
        (kept, KV_CACHE_DTYPES, "keys and values"),
    ):
        if word not in words:
            problem = f"'{word}' of '{text}' is no precision of {what}"
            raise InvalidRequest("precisions", problem, f"Use {', '.join(words[:-1])} or {words[-1]}")
    return Precision(weights, kept)
