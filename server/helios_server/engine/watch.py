"""Which detector watches what, and the alarms that they raised.

Called by the engine as tokens come, requests end and audits complete. Begins anew with every change of model,
heads or depth. It must not act on an alarm: decisions are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helios_contract.haste import Haste
from helios_contract.limits import Baseline, TaskProbe
from helios_contract.serves import Precision
from helios_contract.telemetry import Alarm, AuditRow, BreachCounter, TaskCounts, kept

from helios_server.engine.cusum import BREACH_WINDOW, BreachWindow, Change, Cusum, Expected
from helios_server.engine.task_watch import TaskWatch

_LEARN_AUDITS, _LEARN_REQUESTS = 20, 40
# Least deviations between requests, so that a few alike requests cannot make the detectors nervous.
_QUALITY_FLOOR, _CONFIDENCE_FLOOR = 0.01, 0.02
_PUBLISHED = Precision()
_AUDITS_KEPT = 128


@dataclass(frozen=True)
class ExitInUse:
    """What detectors watch; when it changes they begin anew. digest, depth: of the exit; full_depth: of the
    model.

    served: model uri and revision; limits: with the baselines, which may have become known.
    """

    served: tuple[str, str]
    digest: str
    depth: int
    full_depth: int
    quality: Baseline | None
    confidence: Baseline | None
    precision: Precision = _PUBLISHED


class Watch:
    """At full depth as published quality is 1 by definition and not watched: audits have no such exit. Nor
    has one in another precision, where it was compared with itself."""

    def __init__(self, exit_in_use: ExitInUse) -> None:
        self.audits: tuple[AuditRow, ...] = ()  # told in every step: swapped when one comes, as alarms are
        self.raised: Mapping[tuple[str, str], int] = {}
        """Alarms by kind and direction, over all exits that were watched."""
        self._breaches_before = 0
        self._probe: TaskProbe | None = None
        self._begin(exit_in_use)

    def _begin(self, exit_in_use: ExitInUse) -> None:
        self.alarms: tuple[Alarm, ...] = ()
        self._exit = exit_in_use
        self._quality = Cusum(_expected(exit_in_use.quality), _LEARN_AUDITS, _QUALITY_FLOOR)
        self._confidence = Cusum(_expected(exit_in_use.confidence), _LEARN_REQUESTS, _CONFIDENCE_FLOOR)
        self._breaches = BreachWindow()
        self._tasks = TaskWatch()
        self._newest = 0
        self._haste = Haste()

    def follow(self, exit_in_use: ExitInUse) -> None:
        """Other limits hold. Audits stay: they do not depend on the exit in use."""
        if exit_in_use != self._exit:
            self._breaches_before += self._breaches.total
            self._begin(exit_in_use)

    def probe(self, probe: TaskProbe | None) -> None:
        """Which tasks are asked from now on, and which of them should pass."""
        if probe != self._probe:
            self._probe, self._tasks = probe, TaskWatch()

    @property
    def tasks(self) -> TaskCounts | None:
        """None: none were asked of what serves."""
        return TaskCounts(self._tasks.asked, self._tasks.passed) if self._tasks.asked else None

    def task(self, passes: bool, unix_seconds: float) -> None:
        """An answer to a task that should pass was judged."""
        self._note("Tasks", self._tasks.observe(passes, self._newest), self._newest, unix_seconds)

    def token(self, breach: bool, ordinal: int, unix_seconds: float) -> None:
        """A token of request `ordinal`."""
        self._note("Breach", self._breaches.observe(breach, ordinal), ordinal, unix_seconds)

    def request(self, mean_confidence: float, ordinal: int, unix_seconds: float) -> None:
        """A request ended; mean confidence of its tokens, in [0, 1]."""
        self._note("Confidence", self._confidence.observe(mean_confidence, ordinal), ordinal, unix_seconds)

    def audit(self, row: AuditRow, unix_seconds: float) -> None:
        """An audit is complete."""
        self.audits = (*self.audits, row)[-_AUDITS_KEPT:]
        self._haste.audit(row)
        if watched := row.exits.get((self._exit.digest, self._exit.depth)):
            millibits, _ = watched
            change = self._quality.observe(self._full(row) / max(1, millibits), row.request)
            self._note("Audit", change, row.request, unix_seconds)

    def _full(self, row: AuditRow) -> int:
        """Bits that the exit in use is compared with: of full depth in its own precision, which every row
        knows; full depth itself, quantised, has the model as published alone."""
        at_full = self._exit.depth == self._exit.full_depth
        return row.full_millibits if at_full else row.own_full(self._exit.full_depth)

    @property
    def awaits_audits(self) -> bool:
        """Traffic changed, and fewer of its prompts were audited than it takes to tell what that means."""
        return self._haste.lasts

    def breaches(self, threshold: float) -> BreachCounter:
        """The counter's state. threshold: confidence in [0, 1], in use."""
        total = self._breaches_before + self._breaches.total
        return BreachCounter(threshold, self._breaches.in_window, BREACH_WINDOW, total)

    def _note(self, kind: str, change: Change | None, ordinal: int, unix_seconds: float) -> None:
        self._newest = max(self._newest, ordinal)
        if change:
            direction = "Down" if change.down else "Up"
            self.raised = {**self.raised, (kind, direction): self.raised.get((kind, direction), 0) + 1}
            alarm = Alarm(kind, direction, self._newest, change.since, change.statistic, unix_seconds)
            self._haste.alarm(alarm, self.alarms, self.audits)
            self.alarms = kept((*self.alarms, alarm))


def _expected(baseline: Baseline | None) -> Expected | None:
    return None if baseline is None else Expected(baseline.mean, baseline.standard_deviation)
