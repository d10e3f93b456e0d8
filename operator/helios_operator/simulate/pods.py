"""A simulated serving pod: takes limits or refuses them, serves requests, audits some, keeps prompts, raises
alarms."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from helios_contract.haste import Haste, hastened
from helios_contract.limits import Limits
from helios_contract.telemetry import (
    AS_PUBLISHED,
    OWN,
    Alarm,
    AuditRow,
    Capacity,
    Histogram,
    PromptSet,
    Refusal,
    TaskCounts,
    Telemetry,
    kept,
)
from helios_server.planning.memory import MIB, capacity

from helios_operator.decide.snapshot import Pod, PodPhase
from helios_operator.simulate.truth import AUDIT_BYTES, EXIT_BYTES, PUBLISHED, Model, Text

if TYPE_CHECKING:
    from helios_operator.simulate.world import World

BOUNDS = (1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)


@dataclass
class SimulatedPod:
    name: str
    revision: int
    started: datetime
    limits: Limits
    world: World
    ready: bool = False
    restarts: int = 0
    draining: bool = False
    running: int = 0
    waiting: int = 0
    ends: datetime | None = None
    refused: int = 0
    refusal: str = ""
    requests: int = 0
    at_change: int = 0
    slow: bool = False
    audits: list[AuditRow] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    tasks: TaskCounts | None = None
    ring: list[tuple[int, Text]] = field(default_factory=list)
    frozen: PromptSet | None = None
    down: float = 0.0
    since_down: int = 0
    up: float = 0.0
    since_up: int = 0
    domains: list[str] = field(default_factory=list)
    haste: Haste = field(default_factory=Haste)

    def __post_init__(self) -> None:
        self._boot()

    def _boot(self) -> None:
        self.world.boots += 1
        self.boot_id = f"boot-{self.world.boots}"

    # -- limits ----------------------------------------------------------------------------------------------

    def advance(self, document: Limits) -> None:
        if self.draining:
            self.running = int(self.running and self.ends is not None and self.world.now < self.ends)
            return
        if not self.ready:
            due = self.world.now >= self.started + timedelta(seconds=self.world.start_seconds)
            if due and self.world.starts(document):
                self.ready, self.limits = True, document
            elif due:
                self.restarts += 1
                self.started = self.world.now
            return
        if document.generation > self.limits.generation and self.refused != document.generation:
            self._take(document)

    def _take(self, document: Limits) -> None:
        is_change = _service(document) != _service(self.limits)
        if reason := self.world.refuses(document) if is_change else self.world.refuses_all:
            self.refused, self.refusal = document.generation, reason
            return
        if is_change:
            self.at_change = self.requests
            self._begin_windows()
            self.alarms.clear()
            self.haste = Haste()
            self._restart_detectors()
        self.limits, self.refused, self.refusal = document, 0, ""

    def drain(self) -> None:
        """No new stream; one that runs takes its time."""
        if not self.draining:
            self.draining, self.running = True, int(self.ready)
            self.ends = self.world.now + timedelta(seconds=self.world.stream_seconds)
        self.ready = False

    def crash(self) -> None:
        """A new process: it forgets everything but the document."""
        self.ready, self.started = False, self.world.now
        self.restarts += 1
        self._boot()
        self.requests = self.at_change = 0
        self.audits, self.alarms, self.ring, self.frozen = [], [], [], None
        self.haste = Haste()
        self._restart_detectors()

    # -- serving ---------------------------------------------------------------------------------------------

    def finish(self, text: Text, world: World, now: datetime) -> None:
        self.requests += 1
        self.ring.append((self.requests, text))
        model = self._model()
        percent = self.limits.audit.percent
        if self.world.hastens and self.haste.lasts:
            percent = hastened(percent)
        if percent and self.requests * percent // 100 > (self.requests - 1) * percent // 100:
            self._audit(text, model, now)
        self._watch_confidence(text.domain, now)
        self._freeze(world)

    def _audit(self, text: Text, model: Model, now: datetime) -> None:
        exits, precision = {}, self.limits.precision
        for bundle in self.limits.audit.bundles:
            scored = self._bundle(bundle.digest)
            for layer in scored.exits:
                agreeing = round(text.tokens * text.agreement(scored, layer))
                bits = text.millibits(scored, layer, precision)
                exits[bundle.digest, layer] = (bits, min(text.tokens, agreeing))
        depth = model.backbone.layers
        compared = precision if self.world.audits_own else PUBLISHED
        full, reference = (
            text.millibits(model, depth, compared),
            OWN if self.world.audits_own else AS_PUBLISHED,
        )
        if precision != compared:
            exits[self.limits.exits_digest, depth] = (text.millibits(model, depth, precision), text.tokens)
        row = AuditRow(self.requests, text.tokens, text.bytes, full, exits, reference)
        self.audits = [*self.audits, row][-128:]
        self.haste.audit(row)
        baseline = self.limits.audit.quality
        if baseline and self.limits.layer_budget < model.backbone.layers:
            own = text.millibits(model, depth, precision) / text.millibits(
                model, self.limits.layer_budget, precision
            )
            self._cusum((own - baseline.mean) / max(0.01, baseline.standard_deviation), now)

    def _cusum(self, z: float, now: datetime) -> None:
        z = max(-4.0, min(4.0, z))
        self.down = max(0.0, self.down - z - 0.5)
        self.up = max(0.0, self.up + z - 0.5)
        self.since_down = self.since_down if self.down else self.requests + 1
        self.since_up = self.since_up if self.up else self.requests + 1
        for direction, value, since in (("Down", self.down, self.since_down), ("Up", self.up, self.since_up)):
            if value > 8:
                self._alarm("Audit", direction, since, value, now)
                self._restart_detectors()

    def _watch_confidence(self, domain: str, now: datetime) -> None:
        """A change of the domain shows in the confidence after ten requests of the new one."""
        self.domains = [*self.domains, domain][-40:]
        recent, before = self.domains[-10:], self.domains[:-10]
        if len(before) >= 10 and len(set(recent)) == 1 and recent[0] not in before[-10:]:
            self._alarm("Confidence", "Down", self.requests - 9, 9.0, now)
            self.domains = list(recent)

    def _alarm(self, kind: str, direction: str, since: int, statistic: float, now: datetime) -> None:
        own = (now + self.world.skew(self.name)).timestamp()
        alarm = Alarm(kind, direction, self.requests, since, statistic, own)
        self.haste.alarm(alarm, self.alarms, self.audits)
        self.alarms = [*kept((*self.alarms, alarm))]

    def _restart_detectors(self) -> None:
        self.down = self.up = 0.0
        self.since_down = self.since_up = self.requests + 1
        self.domains = []

    def _freeze(self, world: World) -> None:
        """When the ring is full of prompts newer than the last set, or enough came after an alarm."""
        size = self.limits.live_prompts
        if not size:
            return
        self.ring = self.ring[-size:]
        oldest = self.frozen.to_request if self.frozen else 0
        fresh = [(n, text) for n, text in self.ring if n > oldest]
        if self.alarms:
            fresh = [(n, text) for n, text in fresh if n >= self.alarms[-1].since_request]
            if len(fresh) < min(size, 16):
                return
        elif len(fresh) < size:
            return
        digest = "sha256:" + hashlib.sha256(repr(fresh).encode()).hexdigest()
        world.sets[digest] = [text for _, text in fresh]
        self.frozen = PromptSet(digest, len(fresh), fresh[0][0], fresh[-1][0])

    # -- seen ------------------------------------------------------------------------------------------------

    def seen(self) -> Pod:
        phase = (
            PodPhase.TERMINATING if self.draining else PodPhase.RUNNING if self.ready else PodPhase.PENDING
        )
        message = "" if self.ready else "the checkpoint does not load" if self.restarts else "starting"
        telemetry = self._telemetry() if self.ready or self.draining else None
        return Pod(
            self.name, self.revision, phase, self.ready, self.started, self.restarts, message, telemetry
        )

    def _telemetry(self) -> Telemetry:
        ttft, itl, e2e = self._latencies()
        return Telemetry(
            boot_id=self.boot_id,
            limits=self.limits,
            capacity=Capacity(
                total_layers=self._model().backbone.layers,
                max_batch_size=self._rows(),
                kv_capacity_tokens=self._pool(),
                process_start_bytes=self.world.process_start_bytes,
            ),
            draining=self.draining,
            running=self.running,
            waiting=self.waiting,
            requests_finished=self.requests,
            requests_failed=0,
            requests_since_change=self.requests - self.at_change,
            batch_reached=1,
            generation_tokens_per_second=10.0,
            ttft_ms=ttft,
            itl_ms=itl,
            e2e_ms=e2e,
            audits=tuple(self.audits),
            alarms=tuple(self.alarms),
            prompts=self.frozen,
            tasks=self.tasks,
            contract_version=self.world.contract_version,
            refused=Refusal(self.refused, self.refusal) if self.refused else None,
        )

    def _pool(self) -> int:
        """Tokens, by the memory law."""
        facts = self._model().backbone.memory(self.limits.precision)
        held = self.world.process_start_bytes or facts.process_start_bytes
        bundles = {bundle.digest for bundle in self.limits.audit.bundles if bundle.digest}
        return capacity(
            replace(facts, process_start_bytes=held),
            limit_bytes=self.limits.memory_mib * MIB,
            layers=self.limits.layer_budget,
            tokens_per_request=self.limits.tokens_per_request,
            exit_bytes=len(bundles) * EXIT_BYTES,
            audit_bytes=AUDIT_BYTES if self.limits.audit.percent else 0,
            max_rows=self.limits.max_batch_size,
        ).tokens

    def _rows(self) -> int:
        return min(self.limits.max_batch_size or 4, self.world.rows_that_fit)

    def _begin_windows(self) -> None:
        """What is counted since the last change begins anew."""

    def _latencies(self) -> tuple[Histogram, Histogram, Histogram]:
        """To the first token, between tokens, of whole requests, in milliseconds, since the last change."""
        since = self.requests - self.at_change
        latency = 500.0 if self.slow else 15.0
        counts = tuple(
            since if lower < latency <= upper else 0
            for lower, upper in zip((0.0, *BOUNDS), BOUNDS, strict=False)
        )
        histogram = Histogram(BOUNDS, (*counts, 0), since * latency)
        return histogram, histogram, histogram

    def _model(self) -> Model:
        return self.world.model_of(self.limits)

    def _bundle(self, digest: str) -> Model:
        backbone = self._model().backbone
        return next(m for m in self.world.truth.values() if m.digest == digest and m.backbone == backbone)


def _service(limits: Limits) -> tuple[object, ...]:
    heads = (limits.exits_digest, limits.layer_budget)
    return (limits.model_uri, limits.model_revision, *heads, limits.precision)
