"""How long pods audit in haste."""

from __future__ import annotations

from helios_contract.haste import Haste
from helios_contract.telemetry import Alarm, AuditRow
from helios_operator.decide.policy import DEFAULT


def test_it_lasts_for_as_many_audits_as_decide_any_case() -> None:
    haste, audits = Haste(), 0
    haste.alarm(Alarm("Confidence", "Up", 50, 40, 9.0, 1.0), (), ())
    while haste.lasts:
        haste.audit(AuditRow(51 + audits, 40, 160, 100_000, {}))
        audits += 1
    assert audits == DEFAULT.enough_audits


def test_the_breach_counter_and_tasks_hasten_nothing() -> None:
    haste = Haste()
    for kind in ("Breach", "Tasks"):
        haste.alarm(Alarm(kind, "Down", 50, 40, 51.0, 1.0), (), ())
    assert not haste.lasts
