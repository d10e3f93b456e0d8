"""Rules of evidence: what a decision rests on, and when it has enough."""

from __future__ import annotations

from dataclasses import dataclass

from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot

from tests.decide.properties.rules.rule import Rule, decided, routed
from tests.decide.world import World


class TheFirstChoiceIsMeasured(Rule):
    """Until every candidate is measured, or known to fail, the reference serves at its deepest."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if plan.status.reassessment.decision != "Select" or snapshot.deployment.status.reassessment.last_time:
            return
        for candidate in plan.status.candidates:
            known = candidate.state in ("Failed", "Rejected") or (candidate.timing and candidate.quality)
            assert known or not decided(snapshot, plan), f"chose before {candidate.name} was measured"


class ColdSamplesAreNoEvidence(Rule):
    """What is decided on live traffic rests on enough of it, and on none from right after a change."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        before, after = snapshot.deployment.status.reassessment, plan.status.reassessment
        serving = routed(snapshot)
        if serving is None or not decided(snapshot, plan) or "audited requests" not in after.message:
            return
        seen = [pod.telemetry for pod in serving.pods if pod.telemetry]
        skew = made.skew
        alarms = [
            alarm
            for pod in serving.pods
            for alarm in (pod.telemetry.alarms if pod.telemetry else ())
            if before.last_time is None or alarm.time - skew(pod.name) > before.last_time
        ]
        if alarms:
            since = min(alarm.since_request for alarm in alarms)
            audited = sum(row.request >= since for t in seen for row in t.audits)
            assert audited >= 8, f"decided on {audited} audits since the alarm"
        else:
            requests = sum(t.requests_since_change for t in seen)
            assert requests >= 20, f"decided {requests} requests after a change"


@dataclass
class RequestsAreCountedOnce(Rule):
    """What is counted between two counts was served between them, whatever pods were missed, ended, came or
    went; and without it nothing is won."""

    at: int = 0
    """Requests finished when some were last counted."""
    won_at: int = 0

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        before, after = snapshot.deployment.status.reassessment, plan.status.reassessment
        counted, served = after.requests - before.requests, made.finished - self.at
        assert 0 <= counted <= served, f"counted {counted} of {served} requests"
        called = [
            e.message for e in plan.events if e.message.endswith("requests since the last reassessment")
        ]
        assert all(int(message.split()[0]) <= served for message in called), called
        if counted:
            self.at = made.finished
        if after.consecutive_wins > (before.consecutive_wins if after.winner == before.winner else 0):
            assert made.finished - self.won_at >= 20, "won on requests that were counted before"
            self.won_at = made.finished


@dataclass
class RepairsNeedOnlyAnAlarm(Rule):
    """After enough traffic of one kind, what serves is good enough for it if anything is: whatever cooldown,
    wins and improvement an optimisation would have to wait for."""

    def end(self, made: World) -> None:
        asked = (made.spec.slo.min_quality_percent or 0) / 100
        last = made.domains[-150:]
        if len(set(last)) != 1 or len(last) < 150 or made.active is None:
            return
        serving = next(r for r in made.revisions.values() if r.routed).limits
        model = made.model_of(serving)
        quality = model.own_quality(serving.layer_budget, last[0]) * model.backbone.worth.get(last[0], 1.0)
        quality *= model.kept(serving.precision, last[0])
        best = max(made.model(c).backbone.worth.get(last[0], 1.0) for c in made.spec.candidates)
        assert quality / best >= asked - 0.01, (
            f"{serving.candidate} at {serving.layer_budget} serves {last[0]}"
        )
