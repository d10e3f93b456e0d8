"""Depth by precision under one memory limit: what the memory law says of every combination.

Called by `helios capacity` and by the bench of the frontier. It chooses nothing: what quality and speed a
combination has, others measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helios_contract.results import MemoryFacts
from helios_contract.serves import InPrecision, Precision

from helios_server.planning.memory import capacity, limit_for_rows


@dataclass(frozen=True)
class Combination(InPrecision):
    """tokens: of keys and values, in whole pages; rows: requests that fit at once; missing_bytes: what the
    first request lacks, 0 where it fits."""

    layers: int
    weight_dtype: str
    kv_cache_dtype: str
    weight_bytes: int
    kv_bytes_per_token: int
    tokens: int
    rows: int
    missing_bytes: int


def combinations(
    facts: Mapping[Precision, MemoryFacts],
    *,
    limit_bytes: int,
    depths: Iterable[int],
    tokens_per_request: int,
    exit_bytes: int = 0,
    audit_bytes: int = 0,
    max_rows: int = 0,
) -> tuple[Combination, ...]:
    """Every depth in every precision of `facts`, in that order. depths: layers; the rest as in `capacity`."""
    return tuple(
        _combination(
            precision,
            of_one,
            limit_bytes,
            layers,
            max_rows,
            {"tokens_per_request": tokens_per_request, "exit_bytes": exit_bytes, "audit_bytes": audit_bytes},
        )
        for layers in depths
        for precision, of_one in facts.items()
    )


def _combination(
    precision: Precision,
    facts: MemoryFacts,
    limit_bytes: int,
    layers: int,
    max_rows: int,
    request: Mapping[str, int],
) -> Combination:
    fits = capacity(facts, limit_bytes=limit_bytes, layers=layers, max_rows=max_rows, **request)
    least = limit_for_rows(facts, layers=layers, rows=1, **request)
    return Combination(
        layers=layers,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
        weight_bytes=facts.fixed_bytes + layers * facts.layer_bytes,
        kv_bytes_per_token=layers * facts.kv_bytes_per_token_layer,
        tokens=fits.tokens,
        rows=fits.rows,
        missing_bytes=max(0, least - limit_bytes),
    )
