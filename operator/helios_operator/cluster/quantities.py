"""Kubernetes' quantities ("500m", "16Gi", "1e3") as numbers."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

MIB = 1024 * 1024
_SUFFIXES = {
    **{f"{letter}i": 1024 ** (power + 1) for power, letter in enumerate("KMGTPE")},
    **{letter: 1000 ** (power + 1) for power, letter in enumerate("kMGTPE")},
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
}


_LONGEST_FIRST = sorted(_SUFFIXES, key=len, reverse=True)


def number(quantity: object) -> float:
    """In the resource's own unit: cores, bytes, devices. 0 for what is no quantity."""
    return _number(str(quantity or 0).strip())


@lru_cache(maxsize=4096)
def _number(text: str) -> float:
    """The same few are asked for again and again."""
    for suffix in _LONGEST_FIRST:
        if text.endswith(suffix):
            return float(Fraction(text.removesuffix(suffix)) * _SUFFIXES[suffix])
    try:
        return float(text)
    except ValueError:
        return 0.0


def mib(quantity: object) -> int:
    """Bytes as whole MiB."""
    return int(number(quantity) // MIB)
