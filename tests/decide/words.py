"""All reasons that a pass says, wherever it says them: what `test_reasons` listens to."""

from __future__ import annotations

from collections.abc import Iterator

from helios_operator.api import serialize
from helios_operator.decide import weigh
from helios_operator.decide.plan import Plan, WriteProfile
from helios_operator.decide.snapshot import Snapshot

from tests.decide.world import START


def reasons_in(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    status = plan.status
    yield from (condition.reason for condition in status.conditions)
    yield from (condition.reason for model in plan.models for condition in model.status.conditions)
    yield from (entry.reason for entry in status.history)
    yield from (event.reason for event in plan.events)
    yield status.reassessment.reason
    for action in plan.actions:
        yield action.why.reason
        if isinstance(action, WriteProfile):
            written = serialize.profile(action.row)["status"]
            yield from (condition["reason"] for condition in written["conditions"])
    contenders, options = weigh(snapshot, START)
    yield from (contender.turned_away.reason for contender in contenders if contender.turned_away)
    yield from (option.verdict.reason for option in options)
