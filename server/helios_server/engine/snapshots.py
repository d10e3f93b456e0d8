"""Puts together what the engine tells about itself: one picture, which is never changed, only replaced.

Called by the engine's thread after each step, under its lock, so that what is read belongs together; read by
all others without one. It must change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from helios_contract.telemetry import Refusal, Telemetry

from helios_server.engine.serving import Model, Serving
from helios_server.engine.stats import Stats
from helios_server.engine.telemetry import Load, ModelInfo
from helios_server.engine.watch import Watch
from helios_server.planning.memory import largest_request


@dataclass(frozen=True)
class Told:
    """What serves, how busy it is and what it counted, all of one moment. `info` is of this model."""

    model: Model
    info: ModelInfo
    load: Load
    telemetry: Telemetry

    def accepted(self, requests: int) -> Told:
        """The same, but for a request that was accepted meanwhile. requests: that have not ended."""
        return replace(self, load=replace(self.load, waiting=max(0, requests - self.load.running)))

    def telemetry_now(self, uptime_seconds: float, draining: bool, refused: Refusal | None) -> Telemetry:
        """With what others than the engine's thread know. refused: later limits may have overtaken it."""
        held = self.telemetry.limits.generation
        return replace(
            self.telemetry,
            uptime_seconds=uptime_seconds,
            draining=draining,
            running=self.load.running,
            waiting=self.load.waiting,
            refused=refused if refused is not None and refused.generation > held else None,
        )


def told(
    boot_id: str, serving: Serving, stats: Stats, watch: Watch, requests: int, before: Told | None
) -> Told:
    """Of this moment. requests: that have not ended; before: the last one, whose `info` may still hold."""
    info = before.info if before and _serves_the_same(before, serving) else model_info(serving)
    running = len(serving.scheduler.running)
    load = Load(
        running=running,
        waiting=max(0, requests - running),
        max_batch_size=serving.scheduler.max_rows,
        max_queue_size=serving.limits.max_queue_size,
        kv_capacity_tokens=serving.capacity.kv_capacity_tokens,
        kv_used_tokens=serving.scheduler.pages.used * serving.config.page_tokens,
        draining=False,
    )
    return Told(serving.model, info, load, telemetry(boot_id, serving, info.layer_budget, stats, watch))


def _serves_the_same(before: Told, serving: Serving) -> bool:
    return before.model is serving.model and before.telemetry.limits is serving.limits


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
        weight_dtype=limits.weight_dtype,
        kv_cache_dtype=limits.kv_cache_dtype,
        max_request_tokens=largest_request(model.context, serving.capacity.kv_capacity_tokens),
    )


def telemetry(boot_id: str, serving: Serving, budget: int, stats: Stats, watch: Watch) -> Telemetry:
    """Everything that decisions read, but for what `telemetry_now` adds. budget: layers."""
    window = stats.window
    return Telemetry(
        boot_id=boot_id,
        uptime_seconds=0.0,
        limits=serving.limits,
        capacity=serving.capacity,
        draining=False,
        running=0,
        waiting=0,
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
        audits=watch.audits,
        alarms=watch.alarms,
        breaches=watch.breaches(serving.threshold(budget)),
        tasks=watch.tasks,
        steps=window.steps(),
        generation_tokens_per_second=stats.tokens_per_second,
        refused=None,
    )
