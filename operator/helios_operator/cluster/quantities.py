"""Kubernetes' quantities ("500m", "16Gi", "1e3") as numbers."""

from __future__ import annotations

from fractions import Fraction

MIB = 1024 * 1024
_SUFFIXES = {
    **{f"{letter}i": 1024 ** (power + 1) for power, letter in enumerate("KMGTPE")},
    **{letter: 1000 ** (power + 1) for power, letter in enumerate("kMGTPE")},
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
}


def number(quantity: object) -> float:
    """In the resource's own unit: cores, bytes, devices. 0 for what is no quantity."""
    text = str(quantity or 0).strip()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return float(Fraction(text.removesuffix(suffix)) * _SUFFIXES[suffix])
    try:
        return float(text)
    except ValueError:
        return 0.0


def mib(quantity: object) -> int:
    """Bytes as whole MiB."""
    return int(number(quantity) // MIB)
