"""Puts together what the engine tells about itself.

Called by the engine under its lock, so that what is read belongs together. It must change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from helios_contract.telemetry import Refusal, Telemetry

from helios_server.engine.serving import Serving
from helios_server.engine.stats import Stats
from helios_server.engine.telemetry import ModelInfo
from helios_server.engine.watch import Watch


@dataclass(frozen=True)
class Life:
    """Of the process. uptime_seconds: since start; running, waiting: requests."""

    boot_id: str
    uptime_seconds: float
    draining: bool
    running: int
    waiting: int


def model_info(serving: Serving) -> ModelInfo:
    """What serves."""
    limits, model = serving.limits, serving.model
    *exits, budget = serving.depths
    return ModelInfo(
        candidate=limits.candidate,
        model_uri=limits.model_uri,
        model_revision=limits.model_revision,
        backbone_fingerprint=model.fingerprint,
        exits_uri=limits.exits_uri,
        exits_digest=limits.exits_digest,
        layer_budget=budget,
        total_layers=model.config.num_layers,
        exit_layers=tuple(exits),
        max_context_tokens=model.context,
        vocabulary_size=model.config.vocab_size,
        dtype=model.dtype,
    )


def telemetry(life: Life, serving: Serving, stats: Stats, watch: Watch, refused: Refusal | None) -> Telemetry:
    """Everything that decisions read. refused: the newest refusal, which later limits may have overtaken."""
    window = stats.window
    overtaken = refused is not None and refused.generation <= serving.limits.generation
    return Telemetry(
        boot_id=life.boot_id,
        uptime_seconds=life.uptime_seconds,
        limits=serving.limits,
        capacity=serving.capacity,
        draining=life.draining,
        running=life.running,
        waiting=life.waiting,
        requests_finished=stats.finished,
        requests_failed=stats.failed,
        prompt_tokens=stats.prompt_tokens,
        generation_tokens=stats.generation_tokens,
        preemptions=stats.preemptions,
        batch_reached=window.batch_reached,
        requests_since_change=window.requests,
        ttft_ms=window.ttft_ms.snapshot(),
        itl_ms=window.itl_ms.snapshot(),
        e2e_ms=window.e2e_ms.snapshot(),
        confidence_percent=window.confidence_percent.snapshot(),
        audits=tuple(watch.audits),
        alarms=tuple(watch.alarms),
        breaches=watch.breaches(serving.threshold(serving.budget)),
        steps=window.steps(),
        generation_tokens_per_second=stats.tokens_per_second,
        refused=None if overtaken else refused,
    )
