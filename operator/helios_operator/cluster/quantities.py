"""Kubernetes' quantities ("500m", "16Gi", "1e3") as numbers."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

from kubernetes.utils.quantity import parse_quantity

from helios_operator.api.quantity import is_quantity

MIB = 1024 * 1024
_MOST = Decimal(2**63 - 1)
"""Where Kubernetes caps a quantity."""


def number(quantity: object) -> float:
    """In the resource's own unit: cores, bytes, devices. 0 for what is no quantity."""
    text = quantity.strip() if isinstance(quantity, str) else quantity
    # The client's parser takes more than an API server does ("inf", "1_000").
    return _number(text) if is_quantity(text) else 0.0


@lru_cache(maxsize=4096)
def _number(quantity: object) -> float:
    """The same few are asked for again and again."""
    exact: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return float(max(-_MOST, min(_MOST, exact)))


def mib(quantity: object) -> int:
    """Bytes as whole MiB."""
    return int(number(quantity) // MIB)
