"""What a rule is, and what all rules have to see: what serves, and what a Plan does to it."""

from __future__ import annotations

from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_operator.decide.plan import Action, CreateRevision, DrainRevision, Plan, WriteLimits
from helios_operator.decide.snapshot import Revision, Snapshot

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
