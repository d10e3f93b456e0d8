"""Precisions as a person or a Job names them: `auto/auto,int8/auto,int8/int8`.

Called by `command.py` and by `helios capacity`. It knows the words; whether a device has a precision is known
where a model is loaded.
"""

from __future__ import annotations

from helios_contract.serves import KV_CACHE_DTYPES, WEIGHT_DTYPES, Precision

from helios_server.errors import InvalidRequest


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """WEIGHTS/KV, comma-separated, in the order given; none twice. Raises InvalidRequest."""
    found = tuple(_precision(part.strip()) for part in text.split(","))
    for one in found:
        if found.count(one) > 1:
            raise InvalidRequest("precisions", f"names '{one}' twice", "Name each precision once")
    return found


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
