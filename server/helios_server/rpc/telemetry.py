"""What GetTelemetry says: the engine's picture, and beside it readiness, energy and the frozen prompts.

Called by `rpc.control`. It must not sum, average or judge.
"""

from __future__ import annotations

import time
from dataclasses import replace

import helios_contract
from helios_contract.telemetry import Energy, PromptSet, Telemetry

from helios_server.rpc.pod import Pod
from helios_server.telemetry.prompts import FrozenSet


def telemetry_of(pod: Pod, now: Telemetry | None) -> Telemetry:
    """Of a pod in any phase; None: before the model is loaded there are limits but no counts."""
    frozen, energy = pod.prompts.newest, pod.energy
    return replace(
        now or Telemetry(boot_id=pod.boot_id, limits=pod.limits),
        boot_id=pod.boot_id,
        uptime_seconds=time.monotonic() - pod.started,
        ready=pod.health.ready,
        draining=pod.health.draining,
        energy=Energy(energy.source, energy.joules()) if energy else None,
        prompts=_set(frozen) if frozen else None,
        contract_version=helios_contract.VERSION,
        seconds_since_step=pod.engine.seconds_since_step if pod.engine else 0.0,
    )


def _set(frozen: FrozenSet) -> PromptSet:
    return PromptSet(frozen.digest, len(frozen.prompts), frozen.from_request, frozen.to_request)
