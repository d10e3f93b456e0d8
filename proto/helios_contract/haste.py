"""When a pod scores more prompts than its share: while audits say too little of what a shift of the traffic
means.

Used by the engine and by simulated pods, which must do the same. It draws no request.
"""

from __future__ import annotations

from collections.abc import Sequence

from helios_contract.telemetry import Alarm, AuditRow

_TIMES = 4
_AUDITS = 16
"""Of a shift, after which a case at the threshold is decided whatever they say."""
_SHIFTS = ("Audit", "Confidence")
"""Kinds of alarms that tell of other traffic."""


def hastened(percent: int) -> int:
    """Share of prompts that are scored in haste, by the usual one."""
    return min(100, _TIMES * percent)


class Haste:
    """From a shift's first call until there are enough audits of what came since."""

    def __init__(self) -> None:
        self._since = self._missing = 0

    @property
    def lasts(self) -> bool:
        return self._missing > 0

    def alarm(self, alarm: Alarm, before: Sequence[Alarm], audits: Sequence[AuditRow]) -> None:
        """One was raised, after others; audits: rows so far. A shift that lasts is called again and again:
        that is no news."""
        directions = [each.direction for each in before if each.kind == alarm.kind]
        if alarm.kind in _SHIFTS and directions[-1:] != [alarm.direction]:
            self._since = alarm.since_request
            self._missing = max(0, _AUDITS - sum(row.request >= self._since for row in audits))

    def audit(self, row: AuditRow) -> None:
        """One more is complete."""
        if row.request >= self._since:
            self._missing = max(0, self._missing - 1)
