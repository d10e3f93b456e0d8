"""helios.v1.Telemetry as the decisions read it.

Called by `control.client`. It renames and regroups; it must not sum, average or judge.
"""

from __future__ import annotations

from datetime import UTC, datetime

from helios_proto.v1 import control_pb2 as pb
from helios_server.planning.timing import StepPoint

from helios_operator.control import limits
from helios_operator.decide.snapshot import Alarm, AuditRow, Histogram, PromptSet, Telemetry


def from_proto(message: pb.Telemetry, head_kind: str) -> Telemetry:
    """`head_kind`: of the bundle that the pod serves; steps at full depth went through the model's own
    head."""
    return Telemetry(
        boot_id=message.boot_id,
        limits=limits.from_proto(message.limits),
        kv_capacity_tokens=message.capacity.kv_capacity_tokens,
        max_batch_size=message.capacity.max_batch_size,
        draining=message.draining,
        running=message.running,
        waiting=message.waiting,
        requests_finished=message.requests_finished,
        requests_failed=message.requests_failed,
        requests_since_change=message.requests_since_change,
        batch_reached=message.batch_reached,
        tokens_per_second=message.generation_tokens_per_second,
        ttft_ms=_histogram(message.ttft_ms),
        itl_ms=_histogram(message.itl_ms),
        e2e_ms=_histogram(message.e2e_ms),
        audits=tuple(_audit(row) for row in message.audits),
        alarms=tuple(_alarm(alarm) for alarm in message.alarms),
        breaches_in_window=message.breaches.in_window,
        breach_window=message.breaches.window,
        prompts=_prompts(message.prompts),
        steps=tuple(_step(step, message.capacity.total_layers, head_kind) for step in message.steps),
        refused_generation=message.refused.generation,
        refused_message=message.refused.message,
        process_start_bytes=message.capacity.process_start_bytes,
    )


def _histogram(message: pb.Histogram) -> Histogram:
    return Histogram(tuple(message.upper_bounds), tuple(message.counts), message.sum)


def _audit(row: pb.AuditRow) -> AuditRow:
    exits = {(bits.digest, bits.layer): (bits.millibits, bits.agreeing) for bits in row.exits}
    return AuditRow(row.request, row.tokens, row.bytes, row.full_millibits, exits)


def _alarm(alarm: pb.Alarm) -> Alarm:
    return Alarm(
        kind=alarm.kind,
        direction=alarm.direction,
        at_request=alarm.at_request,
        since_request=alarm.since_request,
        statistic=alarm.statistic,
        time=datetime.fromtimestamp(alarm.unix_seconds, UTC),
    )


def _prompts(message: pb.PromptSet) -> PromptSet | None:
    if not message.digest:
        return None
    return PromptSet(message.digest, message.prompts, message.from_request, message.to_request)


def _step(step: pb.StepTiming, total_layers: int, head_kind: str) -> StepPoint:
    return StepPoint(
        layers=step.layers,
        rows=step.rows,
        kv_tokens=step.kv_tokens,
        sampled=step.sampled,
        head_kind="bare" if step.layers == total_layers else head_kind,
        step_ns=step.mean_us * 1000,
        weight=step.count,
    )
