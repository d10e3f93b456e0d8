"""Carries choices out, from the revisions that are seen: start, route, tell, drain, delete; and takes back
what failed.

Called by `decide` after `reassess`. Level-based: each pass looks at what is there and does the next thing
that is missing, so that a crash between two passes loses nothing. It must not choose what to serve, and it
never takes away what serves before its successor does (unless the strategy is Recreate).
"""

from __future__ import annotations

from helios_operator.api.reasons import Reason
from helios_operator.decide.plan import Verdict
from helios_operator.decide.rollout import analysing, changing, ending, starting, staying
from helios_operator.decide.rollout.step import Carried, Step
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.reassess import Outcome


def next_step(case: Case, outcome: Outcome) -> Carried:
    """The first of these that holds is what this pass does. The case remembers the outcome."""
    step, fleet = Step(case, outcome.waiting), case.fleet
    if fleet.pending is not None and fleet.routed and analysing.was_taken_back(step, fleet.pending):
        return ending.take_out(step, fleet.pending)
    if fleet.pending is not None:
        return starting.await_successor(step, fleet.pending)
    if fleet.routed is None:
        return ending.retire(step) if fleet.retired else starting.start(step)
    if fleet.refusal is not None:
        return changing.take_back(
            step, fleet.routed, Verdict(False, Reason.LIMITS_REFUSED, f"the pod refused: {fleet.refusal}")
        )
    if not changing.has_settled(step, fleet.routed):
        return changing.await_limits(step, fleet.routed)
    if ending.has_arrived(step, fleet.routed):
        return ending.complete(step, fleet.routed)
    if analysing.is_under_way(step, fleet.routed):
        return analysing.look(step, fleet.routed)
    if fleet.retired:
        return ending.retire(step)
    if changing.is_to_be_recreated(step, fleet.routed):
        return changing.recreate(step, fleet.routed)
    if outcome.change is not None:
        return changing.change(step, fleet.routed, outcome.change)
    return staying.keep_in_step(step, fleet.routed)
