"""The HTTP pages of a pod: liveness, readiness, metrics.

Given to the HTTP server by `rpc.server`. They show the same truth as grpc.health.v1 and GetTelemetry.
"""

from __future__ import annotations

from http import HTTPStatus

from helios_contract.telemetry import AS_PUBLISHED, AuditRow, Telemetry
from prometheus_client import CONTENT_TYPE_LATEST

from helios_server.rpc.http import Answer, Page
from helios_server.rpc.pod import Pod


def pages(pod: Pod) -> dict[str, Page]:
    """A page by its path."""

    async def healthz() -> Answer:
        await pod.health.judge(pod.hung())
        return _probe(pod.health.alive, pod)

    async def readyz() -> Answer:
        await pod.health.judge(pod.hung())
        return _probe(pod.health.ready, pod)

    async def metrics() -> Answer:
        await _refresh(pod)
        return Answer(HTTPStatus.OK, pod.metrics.render(), CONTENT_TYPE_LATEST)

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _probe(ok: bool, pod: Pod) -> Answer:
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, f"{pod.health.sentence}\n".encode())


async def _refresh(pod: Pod) -> None:
    """What changes by itself is read at each scrape; what happens is counted when it does."""
    metrics, engine = pod.metrics, pod.engine
    if engine is None:
        metrics.load(0, 0, 0.0, pod.health.ready)
    else:
        telemetry, load = engine.telemetry(), engine.load()
        breaches = telemetry.breaches
        metrics.capacity(telemetry.capacity)
        metrics.audits_took(engine.audit_cpu_seconds)
        metrics.batch_reached.labels(pod.model_name).set(telemetry.batch_reached)
        usage = load.kv_used_tokens / load.kv_capacity_tokens if load.kv_capacity_tokens else 0.0
        metrics.load(load.running, load.waiting, usage, pod.health.ready)
        metrics.alarmed(engine.alarms_raised)
        metrics.signals(
            breaches.in_window / breaches.window if breaches.window else 0.0, *_audited(telemetry)
        )
    if pod.energy is not None:
        metrics.energy(pod.energy.source, pod.energy.joules())


def _audited(telemetry: Telemetry) -> tuple[float | None, float | None]:
    """Quality and agreement of the exit in use, over the audits that scored it; None without any. Of a
    quantised model, over those that compared it with the model as published, where there are some."""
    limits, layers = telemetry.limits, telemetry.capacity.layers_loaded
    rows: list[AuditRow] = [row for row in telemetry.audits if (limits.exits_digest, layers) in row.exits]
    if not rows:
        is_full = layers == telemetry.capacity.total_layers
        return (1.0, 1.0) if telemetry.audits and is_full else (None, None)
    rows = [row for row in rows if row.reference == AS_PUBLISHED] or rows
    used = [row.exits[limits.exits_digest, layers] for row in rows]
    millibits, agreeing = (sum(column) for column in zip(*used, strict=True))
    full, tokens = sum(row.full_millibits for row in rows), sum(row.tokens for row in rows)
    return full / max(1, millibits), agreeing / max(1, tokens)
