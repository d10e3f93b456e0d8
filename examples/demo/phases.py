"""Cuts an act into phases, one for each stretch with the same traffic and the same thing serving, and sums
them up.

Fed by the act while the callers run; reads what the runtime last saw. It must not change anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from helios_contract.serves import AUTO, Precision
from helios_contract.telemetry import AuditRow, Telemetry
from helios_operator.api.types import Served
from helios_operator.decide.snapshot import Snapshot

from examples.demo.traffic import Ledger


@dataclass(frozen=True)
class Phase:
    """`tokens_per_second`: generated, while the callers ran; `quality_percent`: live, by the audit (full
    depth is 100) times what the profile found between this model and the best candidate; None: nothing
    was audited in it.
    """

    act: int
    traffic: str
    candidate: str
    layers: int
    precision: str
    max_batch: int
    batch_reached: int
    tokens_per_second: float
    quality_percent: float | None
    requests: int
    decision: str


class Recorder:
    """Open one phase, let it watch, close it, open the next."""

    def __init__(self, act: int, ledger: Ledger) -> None:
        self._act = act
        self._ledger = ledger
        self.phases: list[Phase] = []

    def open(self, traffic: str, snapshot: Snapshot, decision: str) -> None:
        """`decision`: why what serves now serves."""
        active = snapshot.deployment.status.active
        if active is None:
            raise RuntimeError("a phase can only begin while something serves")
        self._traffic, self._active, self._decision = traffic, active, decision
        self._began = self._seen = time.monotonic()
        self._tokens = self._seen_tokens = self._ledger.tokens
        self._streams = len(self._ledger.streams)
        self._max_batch = self._batch_reached = 0
        self._earlier = {pod.boot_id: _begun(pod) for pod in _telemetry(snapshot)}
        self._audits: dict[tuple[str, int], AuditRow] = {}
        self._digest = ""
        self._profiled = 100.0

    @property
    def requests(self) -> int:
        """Finished in this phase so far."""
        return len(self._ledger.streams) - self._streams

    @property
    def audited(self) -> int:
        """Of this phase's requests so far."""
        return len(self._audits)

    def watch(self, snapshot: Snapshot) -> None:
        """Looks, while what the phase is about still serves: a pod forgets its figures when it changes."""
        pods = [t for t in _telemetry(snapshot) if _limits(t) == _limits_of(self._active)]
        if not pods or _service(snapshot.deployment.status.active) != _service(self._active):
            return
        self._seen, self._seen_tokens = time.monotonic(), self._ledger.tokens
        self._max_batch = max(telemetry.capacity.max_batch_size for telemetry in pods)
        self._batch_reached = max(self._batch_reached, *(telemetry.batch_reached for telemetry in pods))
        self._digest = pods[0].limits.exits_digest
        self._profiled = _profiled(snapshot, self._active)
        self._audits |= {
            (pod.boot_id, row.request): row
            for pod in pods
            for row in pod.audits
            if row.request > self._earlier.get(pod.boot_id, 0)
        }

    def close(self) -> None:
        """Keeps the phase, unless too little happened in it to say anything."""
        if self.requests < 8 or self._seen == self._began:
            return
        self.phases.append(
            Phase(
                act=self._act,
                traffic=self._traffic,
                candidate=self._active.candidate,
                layers=self._active.layer_budget,
                precision=str(self._active.precision),
                max_batch=self._max_batch,
                batch_reached=self._batch_reached,
                tokens_per_second=(self._seen_tokens - self._tokens) / (self._seen - self._began),
                quality_percent=self._quality(),
                requests=self.requests,
                decision=self._decision,
            )
        )

    def _quality(self) -> float | None:
        """Of the audited requests; full depth is not among the scored exits: it is what they are scored by,
        and what it is worth beside the best candidate's the newest profile knows.
        """
        if not self._audits:
            return None
        where = (self._digest, self._active.layer_budget)
        scored = [row for row in self._audits.values() if where in row.exits]
        if not scored:
            return self._profiled
        full = sum(row.full_millibits for row in scored)
        return 100.0 * full / sum(row.exits[where][0] for row in scored)


def _service(served: Served | None) -> tuple[str, int, Precision] | None:
    return (served.candidate, served.layer_budget, served.precision) if served else None


def _limits(pod: Telemetry) -> tuple[int, Precision]:
    return pod.limits.layer_budget, pod.limits.precision


def _limits_of(served: Served) -> tuple[int, Precision]:
    return served.layer_budget, served.precision


def _profiled(snapshot: Snapshot, served: Served) -> float:
    """Quality percent of what serves, where the profile judged that depth; else it is its own reference."""
    judged = next((c for c in snapshot.deployment.status.candidates if c.name == served.candidate), None)
    if judged is None or judged.quality_percent is None:
        return 100.0
    of = judged.layer_budget, judged.weight_dtype or AUTO, judged.kv_cache_dtype or AUTO
    same = of == (served.layer_budget, served.precision.weight_dtype, served.precision.kv_cache_dtype)
    return float(judged.quality_percent) if same else 100.0


def _telemetry(snapshot: Snapshot) -> list[Telemetry]:
    """Of the pods that carry the traffic."""
    return [
        pod.telemetry
        for revision in snapshot.revisions
        if revision.routed
        for pod in revision.pods
        if pod.telemetry is not None
    ]


def _begun(pod: Telemetry) -> int:
    """The ordinal of the newest request: an audit may score it long after it came."""
    return pod.requests_finished + pod.requests_failed + pod.running + pod.waiting
