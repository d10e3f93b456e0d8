"""What others read of an engine: no call here takes a lock or waits, whatever the engine is at.

The base of `Engine`, whose thread swaps the picture. Any thread may call. It must not touch what the engine's
thread owns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from helios_contract.telemetry import Telemetry

from helios_server.engine.answer import Answer
from helios_server.engine.audit import Auditor
from helios_server.engine.changes import Changes
from helios_server.engine.pulse import Activity, Pulse, Work
from helios_server.engine.snapshots import Told
from helios_server.engine.telemetry import Load, ModelInfo
from helios_server.engine.watch import Watch
from helios_server.errors import HeliosError


class Shown:
    """Everything below is set by the engine."""

    _told: Told
    _pulse: Pulse
    _changes: Changes
    _auditor: Auditor
    _watch: Watch
    _answers: Mapping[str, Answer]
    _started: float
    _draining: bool
    _failed: HeliosError | None

    @property
    def running(self) -> int:
        """Requests that hold a row."""
        return self._told.load.running

    @property
    def waiting(self) -> int:
        """Requests that have no row yet, or not again."""
        return self._told.load.waiting

    def info(self) -> ModelInfo:
        """What serves."""
        return self._told.info

    def load(self) -> Load:
        """How busy it is."""
        return replace(self._told.load, draining=self._draining)

    def telemetry(self) -> Telemetry:
        """Everything that decisions read."""
        uptime = time.monotonic() - self._started
        return self._told.telemetry_now(uptime, self._draining, self._changes.refused)

    def activities(self) -> list[Activity]:
        """What it is at, and for how long without a sign of life; nothing while it has nothing to do."""
        if self._failed:
            return []
        waited_for, changes = bool(self._answers), self._changes
        return self._pulse.activities(time.monotonic(), waited_for, changes.since, changes.ended)

    @property
    def seconds_since_step(self) -> float:
        """Age of the last sign of life of a step or of what stands between two; 0 with nothing to do."""
        ages = [activity.seconds for activity in self.activities() if activity.work is not Work.CHANGE]
        return max(ages, default=0.0)

    @property
    def audits_skipped(self) -> int:
        """Prompts that could not be scored, since boot."""
        return self._auditor.skipped

    @property
    def audit_cpu_seconds(self) -> float:
        """Of the process, that audits have taken at most since boot."""
        return self._auditor.cpu_seconds

    @property
    def alarms_raised(self) -> Mapping[tuple[str, str], int]:
        """By kind and direction, since boot, whatever has been exchanged since."""
        return self._watch.raised
