"""The demo's table: what a phase is told of, and what belongs to the one before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.telemetry import AuditRow
from helios_operator.decide.snapshot import Snapshot

from examples.demo.phases import Recorder
from examples.demo.traffic import Ledger, Stream
from tests.decide.builders import inline, world
from tests.decide.truth import BARE_BIG

STREAM = Stream("code", "", "", (), (), 0.0, 0.0, 1.0)


def served() -> Snapshot:
    made = world(inline(), 50, big=BARE_BIG)
    made.run(60)
    return made.snapshot()


def audited(snapshot: Snapshot, finished: int, running: int, rows: dict[int, int]) -> Snapshot:
    """`rows`: exit millibits of a request, by its ordinal; at full depth each takes 1000."""
    (revision,) = snapshot.revisions
    (pod,) = revision.pods
    assert pod.telemetry
    active = snapshot.deployment.status.active
    assert active
    where = (pod.telemetry.limits.exits_digest, active.layer_budget)
    audits = tuple(AuditRow(n, 60, 240, 1000, {where: (bits, 50)}) for n, bits in rows.items())
    told = replace(pod.telemetry, requests_finished=finished, running=running, audits=audits)
    return replace(snapshot, revisions=(replace(revision, pods=(replace(pod, telemetry=told),)),))


def test_a_request_that_began_before_a_phase_is_not_counted_in_it() -> None:
    ledger = Ledger()
    recorder = Recorder(1, ledger)
    before = served()
    recorder.open("code", audited(before, finished=2, running=3, rows={1: 5000}), "why")
    ledger.streams += [STREAM] * 8
    recorder.watch(audited(before, finished=10, running=0, rows={1: 5000, 5: 5000, 6: 1250}))
    recorder.close()
    (phase,) = recorder.phases
    assert phase.quality_percent == pytest.approx(80)
    assert phase.requests == 8
