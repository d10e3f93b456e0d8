"""Rules of changes: how many, how, and when none may be made."""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_operator.api.types import Strategy
from helios_operator.decide.plan import Action, CreateRevision, DrainRevision, Plan, WriteLimits
from helios_operator.decide.snapshot import Snapshot

from tests.decide.properties.rules.rule import TAKEN_BACK, Rule, changes, decided, routed
from tests.decide.world import World


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
