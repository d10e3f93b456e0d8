"""What the engine tells callers about itself: immutable, the same content as the messages of `Generation`.

Made by `snapshots.py`, read by the doors. What it tells the operator is `helios_contract.telemetry`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """What serves. layer_budget, total_layers, exit_layers: layers (legal depths below full depth, within the
    budget).

    max_context_tokens: tokens of prompt and output; vocabulary_size: tokens; dtype: of the weights.
    """

    candidate: str
    model_uri: str
    model_revision: str
    backbone_fingerprint: str
    exits_uri: str
    exits_digest: str
    layer_budget: int
    total_layers: int
    exit_layers: tuple[int, ...]
    max_context_tokens: int
    vocabulary_size: int
    dtype: str


@dataclass(frozen=True)
class Load:
    """running, waiting: requests; max_batch_size: rows; max_queue_size: requests; kv_*_tokens: tokens, whole
    pages.
    """

    running: int
    waiting: int
    max_batch_size: int
    max_queue_size: int
    kv_capacity_tokens: int
    kv_used_tokens: int
    draining: bool
