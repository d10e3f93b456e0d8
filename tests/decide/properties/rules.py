"""The rules that hold at every moment, as watchers of a simulated world: each looks at every pass and
complains.

A watcher knows the rule, not the code: it judges what a Plan does to the world that it saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_operator.api import parse, serialize
from helios_operator.api.types import ReassessmentStatus, Served, Strategy
from helios_operator.decide.facts.precisions import REFERENCE, allowed
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteRevision,
    DrainRevision,
    Plan,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
)
from helios_operator.decide.snapshot import Revision, Snapshot
from helios_server.planning.memory import MIB, limit_for_rows

from tests.decide.world import World

Service = tuple[str, str, str, int, Precision]
TAKEN_BACK = ("LimitsRefused", "RolledBack")


class Rule:
    """`see` is told of every pass before it is applied; `end` when the story is over."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        """Complains by AssertionError."""

    def end(self, made: World) -> None:
        """Complains by AssertionError."""


def service(limits: Limits) -> Service:
    """What callers get."""
    heads = (limits.exits_digest, limits.layer_budget)
    return (limits.model_uri, limits.model_revision, *heads, limits.precision)


def routed(snapshot: Snapshot) -> Revision | None:
    return next((r for r in snapshot.revisions if r.routed and not r.draining), None)


def running(revision: Revision) -> Limits:
    """What its pods run; its document when none answers."""
    seen = [pod.telemetry.limits for pod in revision.pods if pod.telemetry]
    return min(seen, key=lambda limits: limits.generation, default=revision.limits)


def changes(snapshot: Snapshot, plan: Plan) -> list[Action]:
    """Actions that change what callers get, or begin to."""
    serving = routed(snapshot)
    found: list[Action] = []
    for action in plan.actions:
        match action:
            case CreateRevision():
                found.append(action)
            case WriteLimits(limits=limits) if serving and service(limits) != service(running(serving)):
                found.append(action)
            case DrainRevision(number=number) if serving and number == serving.number:
                found.append(action)
    return found


def decided(snapshot: Snapshot, plan: Plan) -> list[Action]:
    """Changes that a decision stands behind: not the first start, not new pods for the same service."""
    serving = routed(snapshot)
    if serving is None or not serving.template_current:
        return []
    return changes(snapshot, plan)


class ServingIsNeverTakenAway(Rule):
    """A model that serves is never taken away before its successor serves, unless the user wrote Recreate."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        serving = routed(snapshot)
        by_number = {revision.number: revision for revision in snapshot.revisions}
        for action in plan.actions:
            match action:
                case DrainRevision(number=number):
                    is_serving = serving is not None and number == serving.number
                    assert not is_serving or made.spec.rollout.strategy is Strategy.RECREATE, (
                        "drained what serves"
                    )
                case DeleteRevision(number=number):
                    self._may_go(by_number[number], serving)
                case Route(revision=number):
                    pods = by_number[number].pods
                    assert sum(pod.ready for pod in pods) >= by_number[number].replicas, (
                        "routed to pods that are not ready"
                    )
                case ScaleRevision(replicas=replicas):
                    assert replicas == made.spec.replicas

    def _may_go(self, revision: Revision, serving: Revision | None) -> None:
        assert revision is not serving, "deleted what serves"
        if revision.draining:
            streams = [pod for pod in revision.pods if pod.telemetry and pod.telemetry.running]
            assert not streams, "deleted a revision that still streams"
        else:
            assert serving is None or revision.number > serving.number, "deleted without draining"


@dataclass
class NothingIsLost(Rule):
    """Every request finds a pod, once one has served."""

    served: bool = False
    lost_before: int = 0

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if not self.served and (serving := routed(snapshot)) and any(pod.ready for pod in serving.pods):
            self.served, self.lost_before = True, made.lost

    def end(self, made: World) -> None:
        assert not self.served or made.lost == self.lost_before, "requests were lost"


class OneChangeAtATime(Rule):
    """At most one change of budget, batch, heads or model is in flight."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        new = changes(snapshot, plan)
        assert len(new) <= 1, new
        serving = routed(snapshot)
        if not new or serving is None:
            return
        if new[0].why.reason in TAKEN_BACK:
            self._restores(new[0], snapshot)
            return
        others = [revision for revision in snapshot.revisions if revision is not serving]
        is_behind = any(
            pod.telemetry and pod.telemetry.limits.generation < serving.limits.generation
            for pod in serving.pods
        )
        is_recreating = isinstance(new[0], DrainRevision)
        assert not others, "a change began while another revision is still there"
        assert not is_behind, "a change began while limits are on their way"
        assert snapshot.deployment.status.target is None or is_recreating, (
            "a change began while one is under way"
        )

    def _restores(self, action: Action, snapshot: Snapshot) -> None:
        """Taking a change back is part of it."""
        active = snapshot.deployment.status.active
        assert isinstance(action, WriteLimits)
        assert active is None or action.limits.layer_budget == active.layer_budget
        assert active is None or action.limits.precision == active.precision


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


@dataclass
class APrecisionIsNotHadAgainAndAgain(Rule):
    """While the traffic is of one kind, what was left for its quality is not taken up again."""

    left: list[tuple[str, Service]] = field(default_factory=list)

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        serving, domain = routed(snapshot), made.domains[-1:]
        for action in decided(snapshot, plan):
            if not isinstance(action, WriteLimits) or serving is None or not domain:
                continue
            before, after = service(running(serving)), service(action.limits)
            assert (domain[0], after) not in self.left, f"back to {action.limits.precision}"
            if action.why.reason == "QualityRestored":
                self.left.append((domain[0], before))


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
        is_asked_for = entry.reason in ("SpecChanged", "ByHand")
        if entry.result == "Failed" or (is_reversal and not is_asked_for):
            assert new.reassessment.backoff_seconds >= max(1, min(3600, 2 * before)), (
                "the back-off did not double"
            )
            assert new.reassessment.backoff_until, "no back-off"


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


class LimitsRestartNoPod(Rule):
    """Depth, batch and heads change in the running pods."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        serving = routed(snapshot)
        if serving is None or not serving.template_current or made.spec.rollout.strategy is Strategy.RECREATE:
            return
        for action in plan.actions:
            if isinstance(action, CreateRevision):
                assert action.limits.model_uri != serving.limits.model_uri, "a new pod for the same backbone"


class AutoSaysWhichAndWhy(Rule):
    """Auto surges when a second pod fits and goes in place when not, and says so."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        serving = routed(snapshot)
        if serving is None or made.spec.rollout.strategy is not Strategy.AUTO or not serving.template_current:
            return
        room = snapshot.free_memory_mib >= serving.limits.memory_mib * max(1, made.spec.replicas)
        for action in changes(snapshot, plan):
            match action:
                case CreateRevision():
                    assert room, "surged without room"
                    assert "Auto chose Surge: a second pod fits" in action.why.message
                case WriteLimits(limits=limits, why=why) if limits.model_uri != serving.limits.model_uri:
                    if why.reason not in TAKEN_BACK:
                        assert not room, "went in place though a second pod fits"
                        assert "Auto chose InPlace: a second pod needs" in why.message


class ChoicesFit(Rule):
    """What is chosen is an exit of its candidate within the bounds, and fits the memory."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        candidates = {c.uri: c for c in made.spec.candidates}
        for action in decided(snapshot, plan):
            if isinstance(action, CreateRevision | WriteLimits) and action.why.reason not in TAKEN_BACK:
                limits = action.limits
                model = made.model_of(limits)
                assert limits.layer_budget in {*model.exits, model.backbone.layers}
                bounds, depth = made.spec.limits.layer_budget, model.backbone.layers
                lowest, highest = min(bounds.min or 1, depth), min(bounds.max or depth, depth)
                assert lowest <= limits.layer_budget <= highest, "outside limits.layerBudget"
                needed = limit_for_rows(
                    model.backbone.memory(limits.precision),
                    layers=limits.layer_budget,
                    rows=limits.max_batch_size,
                    tokens_per_request=limits.tokens_per_request,
                )
                assert limits.max_batch_size >= 1
                assert needed <= limits.memory_mib * MIB, "more rows than the memory holds"
                assert limits.model_uri in candidates
                held = {p for c in made.spec.candidates if c.uri == limits.model_uri for p in allowed(c)}
                assert limits.precision in held, "a precision that the spec does not allow"


class AutoAloneIsAsItWas(Rule):
    """Where nothing else is allowed, nothing else is measured, told or remembered, under no new name."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if any(allowed(c) != (REFERENCE,) for c in made.spec.candidates):
            return
        told = [action.limits for action in plan.actions if isinstance(action, CreateRevision | WriteLimits)]
        asked = [action.job for action in plan.actions if isinstance(action, StartJob)]
        assert all(limits.precision == REFERENCE for limits in told)
        assert all(job.precisions == (REFERENCE,) for job in asked), "another precision is measured"
        assert not any(status.profiles or status.weight_dtype for status in plan.status.candidates)
        words = " ".join(c.message for c in plan.status.conditions) + plan.status.reassessment.message
        assert "int8" not in words


class NoiseIsNeverChosen(Rule):
    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        for action in decided(snapshot, plan):
            if isinstance(action, CreateRevision | WriteLimits) and action.why.reason != "ByHand":
                is_noise = "noise" in action.limits.exits_digest
                assert (
                    not is_noise or action.limits.layer_budget == made.model_of(action.limits).backbone.layers
                )


@dataclass
class MemoryIsInTheApi(Rule):
    """What the API holds of a deployment is all that a decision needs: read back from it, the plan is the
    same."""

    every: int = 5
    passes: int = 0

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        self.passes += 1
        if self.passes % self.every:
            return
        read_back = parse.deployment(serialize.deployment(snapshot.deployment))
        assert read_back.status == snapshot.deployment.status
        assert made.decide(replace(snapshot, deployment=read_back), made.now) == plan


class AnInfeasibleSloTakesNothingDown(Rule):
    """While nothing is feasible (an inter-token latency of 1 ms), what serves is kept, and the conditions say
    both."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if (
            made.spec.slo.itl_ms != 1
            or snapshot.deployment.generation != snapshot.deployment.status.observed_generation
        ):
            return
        allowed = ("ByHand", "SpecChanged", *TAKEN_BACK)
        taken = [action for action in decided(snapshot, plan) if action.why.reason not in allowed]
        assert not taken, f"changed to something infeasible: {taken[0].why}"
        serving = routed(snapshot)
        if serving and any(pod.ready for pod in serving.pods):
            known = {c.type: c.status for c in plan.status.conditions}
            assert known["Available"] == "True"


@dataclass
class WhatIsHeldIsHeld(Rule):
    """Paused, suspended, advisory or outside the window: the decision is said, not made."""

    said: set[str] = field(default_factory=set)

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        new = [a for a in decided(snapshot, plan) if a.why.reason not in ("ByHand", *TAKEN_BACK)]
        self.said.add(plan.status.reassessment.reason)
        is_switch = bool(new) and plan.status.reassessment.decision == "Switch"
        assert not (new and made.spec.rollout.paused), "changed while paused"
        assert not (new and made.spec.reassessment.suspend and not _is_first(plan)), "changed while suspended"
        assert not (new and made.spec.selection.policy == "Advisory"), "changed though Advisory"
        assert not (is_switch and made.spec.reassessment.maintenance_window), "switched outside the window"


def _is_first(plan: Plan) -> bool:
    return plan.status.reassessment.decision == "Select"


class TheFirstChoiceIsMeasured(Rule):
    """Until every candidate is measured, or known to fail, the reference serves at its deepest."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if plan.status.reassessment.decision != "Select" or snapshot.deployment.status.reassessment.last_time:
            return
        for candidate in plan.status.candidates:
            known = candidate.state in ("Failed", "Rejected") or (candidate.timing and candidate.quality)
            assert known or not decided(snapshot, plan), f"chose before {candidate.name} was measured"


class OldPodsStayAsLongAsAsked(Rule):
    """scaleDownDelaySeconds after the traffic moved, not sooner."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        active = snapshot.deployment.status.active
        delay = timedelta(seconds=made.spec.rollout.scale_down_delay_seconds)
        for action in plan.actions:
            if isinstance(action, DrainRevision) and made.spec.rollout.strategy is not Strategy.RECREATE:
                assert active
                assert active.since
                assert made.now >= active.since + delay, "drained too soon"


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


def standing_rules() -> Iterator[Rule]:
    """Those that hold in every story."""
    yield from (
        ServingIsNeverTakenAway(),
        AnInfeasibleSloTakesNothingDown(),
        WhatIsHeldIsHeld(),
        TheFirstChoiceIsMeasured(),
        OldPodsStayAsLongAsAsked(),
        OneChangeAtATime(),
        NoFlapping(),
        BackOffDoubles(),
        ColdSamplesAreNoEvidence(),
        RequestsAreCountedOnce(),
        LimitsRestartNoPod(),
        AutoSaysWhichAndWhy(),
        ChoicesFit(),
        NoiseIsNeverChosen(),
        AutoAloneIsAsItWas(),
        MemoryIsInTheApi(),
    )
