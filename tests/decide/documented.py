"""What every pass of a simulated world is held to: words that the API documents, where it documents them."""

from __future__ import annotations

from functools import cache

from helios_operator.api.reasons import EVERY_REASON
from helios_operator.api.words import Where, Word
from helios_operator.decide.plan import Plan


def check_words(plan: Plan) -> None:
    """Every reason is one that the API documents, where it documents it; nothing is done or refused in
    silence."""
    for condition in plan.status.conditions:
        assert condition.reason in reasons_of(Where(condition.type)), (condition.type, condition.reason)
        assert condition.status == "True" or condition.message, condition
    memory = plan.status.reassessment
    assert memory.reason in {"", *reasons_of(Where.DECISION)}, memory.reason
    for entry in plan.status.history:
        assert entry.reason in reasons_of(Where.DECISION), entry.reason
    for event in plan.events:
        assert event.reason in set(EVERY_REASON), event.reason
        assert event.message
    for action in plan.actions:
        assert action.why.reason in reasons_of(Where.EVENT), action.why.reason
        assert action.why.message


@cache
def reasons_of(where: Where) -> set[Word]:
    return {reason for reason in EVERY_REASON if where in reason.where}
