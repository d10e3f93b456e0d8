"""What GetTelemetry says: the engine's snapshot, and beside it readiness, energy and the frozen prompts.

Called by `rpc.control`. It renames; it must not sum, average or judge.
"""

from __future__ import annotations

import time

from helios_proto.v1 import control_pb2 as pb

from helios_server.engine.telemetry import Alarm, AuditRow, EngineTelemetry, Histogram, StepTiming
from helios_server.rpc import limits as limits_mapping
from helios_server.rpc.pod import Pod


def to_proto(pod: Pod, now: EngineTelemetry | None) -> pb.Telemetry:
    """Of a pod in any phase; None: before the model is loaded there are limits but no counts."""
    message = pb.Telemetry(limits=limits_mapping.to_proto(pod.limits)) if now is None else _engine(now)
    message.boot_id = pod.boot_id
    message.uptime_seconds = time.monotonic() - pod.started
    message.ready = pod.health.ready
    message.draining = pod.health.draining
    if pod.energy is not None:
        message.energy.CopyFrom(pb.Energy(source=pod.energy.source, joules=pod.energy.joules()))
    frozen = pod.prompts.newest
    if frozen is not None:
        message.prompts.CopyFrom(
            pb.PromptSet(
                digest=frozen.digest,
                prompts=len(frozen.prompts),
                from_request=frozen.from_request,
                to_request=frozen.to_request,
            )
        )
    return message


def _engine(telemetry: EngineTelemetry) -> pb.Telemetry:
    breaches, refused = telemetry.breaches, telemetry.refused
    return pb.Telemetry(
        limits=limits_mapping.to_proto(telemetry.limits),
        capacity=limits_mapping.capacity_to_proto(telemetry.capacity),
        running=telemetry.running,
        waiting=telemetry.waiting,
        requests_finished=telemetry.requests_finished,
        requests_failed=telemetry.requests_failed,
        prompt_tokens=telemetry.prompt_tokens,
        generation_tokens=telemetry.generation_tokens,
        preemptions=telemetry.preemptions,
        batch_reached=telemetry.batch_reached,
        requests_since_change=telemetry.requests_since_change,
        ttft_ms=_histogram(telemetry.ttft_ms),
        itl_ms=_histogram(telemetry.itl_ms),
        e2e_ms=_histogram(telemetry.e2e_ms),
        confidence_percent=_histogram(telemetry.confidence_percent),
        audits=[_audit(row) for row in telemetry.audits],
        alarms=[_alarm(alarm) for alarm in telemetry.alarms],
        breaches=pb.BreachCounter(
            threshold=breaches.threshold,
            in_window=breaches.in_window,
            window=breaches.window,
            total=breaches.total,
        ),
        steps=[_step(step) for step in telemetry.steps],
        generation_tokens_per_second=telemetry.generation_tokens_per_second,
        refused=pb.Refusal(generation=refused.generation, message=refused.message) if refused else None,
    )


def _histogram(histogram: Histogram) -> pb.Histogram:
    return pb.Histogram(upper_bounds=histogram.upper_bounds, counts=histogram.counts, sum=histogram.sum)


def _audit(row: AuditRow) -> pb.AuditRow:
    return pb.AuditRow(
        request=row.request,
        tokens=row.tokens,
        bytes=row.bytes,
        full_millibits=row.full_millibits,
        exits=[
            pb.ExitBits(digest=digest, layer=layer, millibits=millibits, agreeing=agreeing)
            for (digest, layer), (millibits, agreeing) in row.exits.items()
        ],
    )


def _alarm(alarm: Alarm) -> pb.Alarm:
    return pb.Alarm(
        kind=alarm.kind,
        direction=alarm.direction,
        at_request=alarm.at_request,
        since_request=alarm.since_request,
        statistic=alarm.statistic,
        unix_seconds=alarm.unix_seconds,
    )


def _step(step: StepTiming) -> pb.StepTiming:
    return pb.StepTiming(
        layers=step.layers,
        rows=step.rows,
        sampled=step.sampled,
        kv_tokens=step.kv_tokens,
        count=step.count,
        mean_us=step.mean_us,
    )
