"""Cuts an act into phases, one for each stretch with the same traffic and the same thing serving, and sums them up.

Fed by the act while the callers run; reads what the runtime last saw. It must not change anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from helios_operator.api.types import Served
from helios_operator.decide.snapshot import AuditRow, Snapshot, Telemetry

from examples.demo.traffic import Ledger


@dataclass(frozen=True)
class Phase:
    """`tokens_per_second`: generated, while the callers ran; `quality_percent`: live, by the audit (full depth is 100)
    times what the profile found between this model and the best candidate; None: nothing was audited in it."""

    act: int
    traffic: str
    candidate: str
    layers: int
    max_batch: int
    batch_reached: int
    tokens_per_second: float
    quality_percent: float | None
    requests: int
    decision: str


class Recorder:
    """Open one phase, close it, open the next."""

    def __init__(self, act: int, ledger: Ledger) -> None:
        self._act = act
        self._ledger = ledger
        self.phases: list[Phase] = []

    def open(self, traffic: str, snapshot: Snapshot, decision: str) -> None:
        active = snapshot.deployment.status.active
        if active is None:
            raise RuntimeError("a phase can only begin while something serves")
        self._traffic, self._active, self._decision = traffic, active, decision
        self._began, self._tokens, self._streams = time.monotonic(), self._ledger.tokens, len(self._ledger.streams)
        self._first_audit = max((row.request for row in _audits(snapshot)), default=-1) + 1

    @property
    def active(self) -> Served:
        return self._active

    @property
    def requests(self) -> int:
        """Finished in this phase so far."""
        return len(self._ledger.streams) - self._streams

    def close(self, snapshot: Snapshot) -> None:
        """Keeps the phase, unless too little happened in it to say anything."""
        seconds = time.monotonic() - self._began
        if self.requests < 8:
            return
        self.phases.append(
            Phase(
                act=self._act,
                traffic=self._traffic,
                candidate=self._active.candidate,
                layers=self._active.layer_budget,
                max_batch=max((t.max_batch_size for t in _telemetry(snapshot)), default=0),
                batch_reached=max((t.batch_reached for t in _telemetry(snapshot)), default=0),
                tokens_per_second=(self._ledger.tokens - self._tokens) / seconds,
                quality_percent=self._quality(snapshot),
                requests=self.requests,
                decision=self._decision,
            )
        )

    def _quality(self, snapshot: Snapshot) -> float | None:
        rows = [row for row in _audits(snapshot) if row.request >= self._first_audit]
        digest = next((t.limits.exits_digest for t in _telemetry(snapshot)), "")
        key = (digest, self._active.layer_budget)
        scored = [(row.full_millibits, row.exits[key][0]) for row in rows if key in row.exits]
        if not scored:
            return None if rows == [] else 100.0
        full, at_exit = (sum(column) for column in zip(*scored, strict=True))
        return 100.0 * full / at_exit


def _telemetry(snapshot: Snapshot) -> list[Telemetry]:
    """Of the pods that carry the traffic."""
    return [
        pod.telemetry
        for revision in snapshot.revisions
        if revision.routed
        for pod in revision.pods
        if pod.telemetry is not None
    ]


def _audits(snapshot: Snapshot) -> list[AuditRow]:
    return [row for telemetry in _telemetry(snapshot) for row in telemetry.audits]
