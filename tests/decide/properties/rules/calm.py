"""Rules of calm: what was decided is not decided again and again."""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_operator.api.types import ReassessmentStatus, Served
from helios_operator.decide.plan import Action, Plan
from helios_operator.decide.snapshot import Snapshot

from tests.decide.properties.rules.rule import TAKEN_BACK, Rule, decided
from tests.decide.world import World


@dataclass
class NoFlapping(Rule):
    """An optimisation needs consecutive wins on new evidence, cooldown and minimum improvement."""

    wins: list[tuple[str, int]] = field(default_factory=list)
    """(winner, requests finished by then) of the reassessments in a row that it won."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        before, after = snapshot.deployment.status.reassessment, plan.status.reassessment
        optimising = [a for a in decided(snapshot, plan) if a.why.reason == "AboveMinImprovement"]
        if optimising:
            self._judge(made, snapshot, optimising[0], before)
        if after.last_time != before.last_time:
            self._remember(after, made)

    def _judge(self, made: World, snapshot: Snapshot, action: Action, before: ReassessmentStatus) -> None:
        rules, history = made.spec.reassessment, snapshot.deployment.status.history
        last = max((entry.time for entry in history if entry.result == "Promoted"), default=None)
        assert last is None or made.now >= last + rules.cooldown, "optimised within the cooldown"
        assert action.why.numbers["gainPercent"] >= rules.min_improvement_percent, "optimised for too little"
        needed = rules.consecutive_success_limit - 1
        recent = self.wins[-needed:] if needed else []
        assert len(recent) >= needed, f"optimised after {len(recent)} wins"
        assert len({winner for winner, _ in recent}) <= 1
        assert not recent or made.finished - recent[-1][1] >= 20, "won twice on the same evidence"

    def _remember(self, after: ReassessmentStatus, made: World) -> None:
        if after.reason != "WaitingForWins":
            self.wins = []
        elif after.consecutive_wins > (
            len(self.wins) if self.wins and self.wins[-1][0] == after.winner else 0
        ):
            same = self.wins if self.wins and self.wins[-1][0] == after.winner else []
            done = made.finished
            assert not same or done - same[-1][1] >= 20, "won twice on the same evidence"
            self.wins = [*same, (str(after.winner), done)]


def _service(served: Served) -> tuple[object, ...]:
    return (served.candidate, served.exits_digest, served.layer_budget, served.precision)


class BackOffDoubles(Rule):
    """A reversal or a failure doubles the back-off; while it lasts nothing is decided, repairs included."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        old, new = snapshot.deployment.status, plan.status
        until = old.reassessment.backoff_until
        if until and made.now < until:
            free = [a for a in decided(snapshot, plan) if a.why.reason not in ("ByHand", *TAKEN_BACK)]
            assert not free, f"decided during the back-off: {free[0].why}"
        if new.history[-1:] == old.history[-1:] or not new.history:
            return
        entry, before = new.history[-1], old.reassessment.backoff_seconds
        left = [e.from_ for e in old.history if e.result == "Promoted"][-2:]
        is_reversal = any(x and _service(x) == _service(entry.to) for x in left)
        is_asked_for = entry.reason in ("SpecChanged", "CandidatesChanged", "ByHand")
        if entry.result == "Failed" or (is_reversal and not is_asked_for):
            assert new.reassessment.backoff_seconds >= max(1, min(3600, 2 * before)), (
                "the back-off did not double"
            )
            assert new.reassessment.backoff_until, "no back-off"


@dataclass
class ItSettles(Rule):
    """With nothing happening, nothing is done, and the same is said."""

    def end(self, made: World) -> None:
        made.run(90, every=3)
        for revision in made.revisions.values():
            told = [pod.limits for pod in revision.pods if pod.ready]
            assert all(limits == revision.limits for limits in told), "pods do not run their document"
        first = made.look()
        second = made.look()
        assert not first.actions, first.actions
        assert first.status == second.status
