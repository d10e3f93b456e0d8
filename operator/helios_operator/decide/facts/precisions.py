"""Which precisions a candidate may be served in, in which order, and why others are left out.

Called by `candidates` for each, and by `measure` for a backbone. Words are the API's; the order is the
contract's, so that what is measured first does not follow from a list. It must not know how good or how fast
one is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from helios_contract.limits import Limits
from helios_contract.serves import AUTO, PRECISIONS, REFERENCE, WEIGHT_DTYPES, Precision

from helios_operator.api.types import Candidate

DEFAULT_DTYPES = (AUTO, "int8")
"""Of weights, and of keys and values, where the spec names none."""
WITH_FP8 = tuple(Precision(weights, "fp8") for weights in WEIGHT_DTYPES)
"""On accelerators, and only where the spec asks for it: after what every device has."""
ORDER = (*PRECISIONS, *WITH_FP8)
_BYTES = {AUTO: 1.0, "int8": 0.5, "int4": 0.28}
"""Of weights as published in 16 bits, and rather too few: before anything is measured."""


@dataclass(frozen=True)
class Weighed:
    """`left_out`: precisions that the spec allows and nobody measures, each with the reason."""

    precisions: tuple[Precision, ...]
    left_out: tuple[tuple[Precision, str], ...] = ()

    @property
    def said(self) -> str:
        """ "int4/int8 (more than 6 of a backbone)"; "" when nothing is left out."""
        return ", ".join(f"{precision} ({why})" for precision, why in self.left_out)


def weighed(candidate: Candidate, family: Iterable[Candidate], accelerator: str | None, most: int) -> Weighed:
    """Of a candidate. `family`: all on its backbone, which are measured together; `most`: of them."""
    own = allowed(candidate)
    served = [p for p in ORDER if any(p in allowed(each) for each in family) and _has(p, accelerator)]
    kept = served[:most]
    out = [(p, _why_not(p, accelerator, most)) for p in own if p not in kept]
    return Weighed(tuple(p for p in own if p in kept), tuple(out))


def allowed(candidate: Candidate) -> tuple[Precision, ...]:
    """By the spec, in the order in which they are measured."""
    weights = candidate.weight_dtypes or DEFAULT_DTYPES
    keys = candidate.kv_cache_dtypes or DEFAULT_DTYPES
    wanted = {Precision(*pair) for pair in product(weights, keys)}
    return tuple(precision for precision in ORDER if precision in wanted)


def share_of_weights(precision: Precision) -> float:
    """Of the bytes that the weights take as published, at least."""
    return _BYTES[precision.weight_dtype]


def is_known_to(contract_version: int, precision: Precision) -> bool:
    """Whether a pod of that version of the contract understands limits that name it."""
    limits = Limits(
        generation=0,
        candidate="",
        model_uri="",
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )
    return not limits.newer_than(contract_version)


def place(precision: Precision) -> int:
    """In the order; behind all where it is of a newer release."""
    return ORDER.index(precision) if precision in ORDER else len(ORDER)


def suffix(precision: Precision) -> str:
    """For names and sentences; "" for the reference, of which nothing was said before there were others."""
    return "" if precision == REFERENCE else f" in {precision}"


def _has(precision: Precision, accelerator: str | None) -> bool:
    return accelerator is not None or precision not in WITH_FP8


def _why_not(precision: Precision, accelerator: str | None, most: int) -> str:
    if not _has(precision, accelerator):
        return "kvCacheDtypes: fp8 needs an accelerator that has it, pods run on a CPU"
    return f"more than {most} of a backbone"
