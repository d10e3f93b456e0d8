"""What the engine tells callers about itself: immutable, the same content as the messages of `Generation`.

Made by `snapshots.py`, read by the doors. What it tells the operator is `helios_contract.telemetry`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """What serves."""

    candidate: str
    model_uri: str
    model_revision: str
    backbone_fingerprint: str
    exits_uri: str
    exits_digest: str
    layer_budget: int
    total_layers: int
    exit_layers: tuple[int, ...]
    """Legal depths below full depth, within the budget."""
    max_context_tokens: int
    """Of prompt and output."""
    vocabulary_size: int
    """Tokens."""
    dtype: str
    """The format of weights that are held as published, and of what is computed in."""
    weight_dtype: str
    """Precision, as the next one."""
    kv_cache_dtype: str
    max_request_tokens: int
    """Of prompt and output: the context, or what the KV cache has room for."""


@dataclass(frozen=True)
class Load:
    """How busy it is."""

    running: int
    """Requests."""
    waiting: int
    """Requests."""
    max_batch_size: int
    """Rows."""
    max_queue_size: int
    """Requests."""
    kv_capacity_tokens: int
    """Whole pages, as the next."""
    kv_used_tokens: int
    draining: bool
