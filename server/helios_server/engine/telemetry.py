"""What the engine tells about itself: immutable snapshots, the same content as the messages of the protocol.

Made by `stats.py` and `engine.py`, read by the doors. Plain data: nothing here may compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helios_server.engine.limits import CapacityReport, EngineLimits


@dataclass(frozen=True)
class Histogram:
    """counts: per bucket, one more than upper_bounds, the last one open; sum: of the values, in the bounds'
    unit.
    """

    upper_bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class StepTiming:
    """Steps of about one shape. layers: run; rows: new tokens; sampled: rows through the LM head.

    kv_tokens: context summed over the rows, mean; count: steps; mean_us: microseconds.
    """

    layers: int
    rows: int
    sampled: int
    kv_tokens: int
    count: int
    mean_us: float


@dataclass(frozen=True)
class AuditRow:
    """One request whose prompt was scored. request: ordinal since boot; tokens: scored; bytes: UTF-8, of
    their text.

    full_millibits: total at full depth; exits: (bundle digest, layer) -> (total millibits, tokens whose most
    likely one is full depth's).
    """

    request: int
    tokens: int
    bytes: int
    full_millibits: int
    exits: Mapping[tuple[str, int], tuple[int, int]]


@dataclass(frozen=True)
class Alarm:
    """kind: Audit | Confidence | Breach; direction: Down | Up. at_request, since_request: ordinals since
    boot.

    since_request: the estimated change point; statistic: what crossed the threshold, in standard deviations
    (breaches for Breach); unix_seconds: wall clock.
    """

    kind: str
    direction: str
    at_request: int
    since_request: int
    statistic: float
    unix_seconds: float


@dataclass(frozen=True)
class BreachCounter:
    """threshold: confidence in [0, 1]; in_window: breaches in the last `window` tokens; total: since boot."""

    threshold: float
    in_window: int
    window: int
    total: int


@dataclass(frozen=True)
class Refusal:
    """Limits that could not be applied. generation: theirs; message: why."""

    generation: int
    message: str


@dataclass(frozen=True)
class EngineTelemetry:
    """boot_id: changes with the process; uptime_seconds: since start. Counts are since boot.

    Windows since the last change of limits: batch_reached (most rows in one step), requests_since_change, the
    four histograms, steps. audits: the newest 128; alarms: at most 16, newest last;
    generation_tokens_per_second: over the last 10 seconds with work; refused: the newest refusal, if newer
    than the limits.
    """

    boot_id: str
    uptime_seconds: float
    limits: EngineLimits
    capacity: CapacityReport
    draining: bool
    running: int
    waiting: int
    requests_finished: int
    requests_failed: int
    prompt_tokens: int
    generation_tokens: int
    preemptions: int
    batch_reached: int
    requests_since_change: int
    ttft_ms: Histogram
    itl_ms: Histogram
    e2e_ms: Histogram
    confidence_percent: Histogram
    audits: tuple[AuditRow, ...]
    alarms: tuple[Alarm, ...]
    breaches: BreachCounter
    steps: tuple[StepTiming, ...]
    generation_tokens_per_second: float
    refused: Refusal | None


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
