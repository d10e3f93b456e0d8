"""The memory law: how many tokens of KV cache fit beside k layers.

Called by the engine when it sizes its KV pool and by the decisions when they compare depths. It must
not measure or allocate anything: every number comes in as an argument.

    tokens_max(k) = (usable - fixed - k * layer - activations) / (k * kv_per_token_and_layer)
"""

from __future__ import annotations

from dataclasses import dataclass

from helios_contract.results import MemoryFacts

MIB = 1024 * 1024


@dataclass(frozen=True)
class Capacity:
    """What fits. `rows` requests of the workload's length, `tokens` of KV in whole pages."""

    rows: int
    tokens: int
    kv_bytes: int
    activation_bytes: int


def largest_request(context_tokens: int, kv_tokens: int) -> int:
    """Tokens of prompt and output that one request may have. The last one of the output is never attended to,
    so the cache holds one less."""
    return min(context_tokens, kv_tokens + 1)


def capacity(
    facts: MemoryFacts,
    *,
    limit_bytes: int,
    layers: int,
    tokens_per_request: int,
    exit_bytes: int = 0,
    audit_bytes: int = 0,
    max_rows: int = 0,
) -> Capacity:
    """Rows and tokens that fit under `limit_bytes` with `layers` layers loaded.

    `exit_bytes`: head bundles held; `audit_bytes`: the audit's own peak (one layer and its batch).
    `max_rows` caps the rows (0: no cap) and so also the logits; memory that the rows do not need is
    still given to KV, so that longer requests fit. Returns zero rows when not even one fits.
    """
    free = (
        limit_bytes
        - facts.process_start_bytes
        - facts.fixed_bytes
        - layers * facts.layer_bytes
        - exit_bytes
        - audit_bytes
        - facts.step_tokens * facts.activation_bytes_per_token
    )
    token_bytes = layers * facts.kv_bytes_per_token_layer
    page_bytes = facts.page_tokens * token_bytes
    pages_per_request = -(-tokens_per_request // facts.page_tokens)
    rows = max(0, free // (pages_per_request * page_bytes + facts.row_bytes))
    if max_rows:
        rows = min(rows, max_rows)
    pages = max(0, free - rows * facts.row_bytes) // page_bytes if rows else 0
    return Capacity(
        rows=rows,
        tokens=pages * facts.page_tokens,
        kv_bytes=pages * page_bytes,
        activation_bytes=facts.step_tokens * facts.activation_bytes_per_token + rows * facts.row_bytes,
    )


def limit_for_rows(
    facts: MemoryFacts,
    *,
    layers: int,
    rows: int,
    tokens_per_request: int,
    exit_bytes: int = 0,
    audit_bytes: int = 0,
) -> int:
    """The smallest limit in bytes under which `capacity` finds `rows` rows: the law read backwards."""
    page_bytes = facts.page_tokens * layers * facts.kv_bytes_per_token_layer
    pages_per_request = -(-tokens_per_request // facts.page_tokens)
    return (
        facts.process_start_bytes
        + facts.fixed_bytes
        + layers * facts.layer_bytes
        + exit_bytes
        + audit_bytes
        + facts.step_tokens * facts.activation_bytes_per_token
        + rows * (pages_per_request * page_bytes + facts.row_bytes)
    )


def limit_mib_for_rows(facts: MemoryFacts, *, layers: int, rows: int, **asked: int) -> int:
    """A limit in MiB under which any process finds `rows` rows: half-way to one more, for no two processes
    start alike to the byte. A row of a small model is a part of a MiB: then there is room for more. asked:
    the rest, as `limit_for_rows` takes it."""
    needed, more = (limit_for_rows(facts, layers=layers, rows=each, **asked) for each in (rows, rows + 1))
    return max((needed + more) // 2 // MIB, -(-needed // MIB))
