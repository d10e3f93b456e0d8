"""Rules of precisions: they are had where they are allowed, and not again where they failed."""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_contract.serves import REFERENCE
from helios_operator.decide.facts.precisions import allowed
from helios_operator.decide.plan import CreateRevision, Plan, StartJob, WriteLimits
from helios_operator.decide.snapshot import Snapshot

from tests.decide.properties.rules.rule import Rule, Service, decided, routed, running, service
from tests.decide.world import World


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
