"""How a bench's `--formats` are asked of our engine: a word is a dtype of the whole, or a precision of the
weights beside the dtype that the machine names."""

from __future__ import annotations

from helios_contract.serves import AUTO, WEIGHT_DTYPES, Precision

FORMATS = ["float16", "bfloat16", "int8"]
"""What is measured unless others are named."""


def asked(name: str) -> tuple[str | None, Precision]:
    """The dtype, None for the machine's own, and the precision."""
    return (None, Precision(name)) if name in set(WEIGHT_DTYPES) - {AUTO} else (name, Precision())
