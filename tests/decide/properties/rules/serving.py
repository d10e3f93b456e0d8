"""Rules of what serves: it is kept, whatever is decided beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from helios_operator.api.types import Strategy
from helios_operator.decide.plan import DeleteRevision, DrainRevision, Plan, Route, ScaleRevision
from helios_operator.decide.snapshot import Revision, Snapshot

from tests.decide.properties.rules.rule import TAKEN_BACK, Rule, decided, routed
from tests.decide.world import World


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


class AnInfeasibleSloTakesNothingDown(Rule):
    """While nothing is feasible (an inter-token latency of 1 ms), what serves is kept, and the conditions say
    both."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        if (
            made.spec.slo.itl_ms != 1
            or snapshot.deployment.generation != snapshot.deployment.status.observed_generation
        ):
            return
        allowed = ("ByHand", "SpecChanged", "CandidatesChanged", *TAKEN_BACK)
        taken = [action for action in decided(snapshot, plan) if action.why.reason not in allowed]
        assert not taken, f"changed to something infeasible: {taken[0].why}"
        serving = routed(snapshot)
        if serving and any(pod.ready for pod in serving.pods):
            known = {c.type: c.status for c in plan.status.conditions}
            assert known["Available"] == "True"


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
