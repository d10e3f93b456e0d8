"""Against flapping: wins in a row, cooldown, minimum improvement, gain against cost, back-off.

Called by `reassess` before a change and by `rollout` after one. All it remembers is in status.reassessment. A
repair (feasible instead of infeasible) is held by the back-off alone. It must not choose options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from helios_contract.serves import REFERENCE

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Decision, HistoryEntry, ReassessmentStatus, Served
from helios_operator.decide.facts import tally
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import Policy
from helios_operator.decide.weigh import remedies, select
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.strategy import Way
from helios_operator.decide.weigh.triggers import Cause

ASKED_FOR = frozenset({Reason.SPEC_CHANGED, Reason.CANDIDATES_CHANGED, Reason.BY_HAND})


def gain(best: Option, current: Option, way: Way | None, case: Case) -> Verdict:
    """Is it worth it, by the objective alone?"""
    objective, rules = case.spec.slo.optimization_type, case.spec.reassessment
    percent = select.improvement_percent(best, current, objective)
    figures = {
        "gainPercent": round(min(percent, 1e6), 1),
        "askedPercent": float(rules.min_improvement_percent),
    }
    if percent < rules.min_improvement_percent:
        message = f"{best} would gain {percent:.0f} %, {rules.min_improvement_percent} % asked"
        return Verdict(False, Reason.BELOW_MIN_IMPROVEMENT, message, figures)
    history = case.snapshot.deployment.status.history
    cost = remedies.cost_seconds(best, current, way, case.spec.workload, history, case.policy)
    dwell = remedies.dwell_seconds(history, case.now, case.policy)
    figures |= {"costSeconds": round(cost, 1), "dwellSeconds": round(dwell, 1)}
    if percent / 100 * dwell <= cost * case.policy.margin:
        message = (
            f"{best} would gain {percent:.0f} % for about {dwell:.0f} s and cost {cost:.0f} s of service"
        )
        return Verdict(False, Reason.COST_EXCEEDS_GAIN, message, figures)
    message = f"{best} gains {percent:.0f} % ({rules.min_improvement_percent} % asked)"
    return Verdict(True, Reason.ABOVE_MIN_IMPROVEMENT, message, figures)


def wins(best: Option, case: Case) -> int:
    """In a row, this one included when its evidence is new: the same samples do not win twice."""
    same = case.memory.winner == label(best)
    before = case.memory.consecutive_wins if same else 0
    return before + 1 if has_new_evidence(case) else before


def has_new_evidence(case: Case) -> bool:
    """Enough requests, or enough time, since the last reassessment that counted. Time alone says nothing of a
    pod that was not reached."""
    by_time = case.memory.trigger == Cause.INTERVAL and not case.fleet.unreached
    return by_time or tally.fresh(case.memory, case.fleet) >= case.policy.cold_requests


def enough_wins(best: Option, case: Case) -> Verdict:
    count, limit = wins(best, case), case.spec.reassessment.consecutive_success_limit
    return Verdict(count >= limit, Reason.WAITING_FOR_WINS, f"{best} won {count} of {limit} times in a row")


def cooled_down(case: Case) -> Verdict:
    until = case.memory.cooldown_until
    if until and case.now < until:
        return Verdict(False, Reason.COOLING_DOWN, f"{_seconds(until - case.now)} s of the cooldown are left")
    return Verdict(True, Reason.COOLING_DOWN, "cooled down")


def backed_off(case: Case) -> Verdict:
    until = case.memory.backoff_until
    if until and case.now < until:
        return Verdict(
            False, Reason.BACKING_OFF, f"the next change may come in {_seconds(until - case.now)} s"
        )
    return Verdict(True, Reason.BACKING_OFF, "no back-off")


def label(option: Option) -> str:
    """Names a service in the status, whatever its candidate is called."""
    backbone, digest, layer, precision = option.service
    held = "" if precision == REFERENCE else f"/{precision}"
    return f"{backbone[:12]}/{digest.removeprefix('sha256:')[:12]}/{layer}{held}"


def after_change(case: Case, to: Served, history: Sequence[HistoryEntry]) -> ReassessmentStatus:
    """The memory when a change ended well. `history` is that before it. What a person asked for, by the spec
    or by hand, is no flapping, and must not hold up what they ask for next."""
    memory, rules, policy = case.memory, case.spec.reassessment, case.policy
    backoff = timedelta(0)
    if memory.reason not in ASKED_FOR and _is_reversal(to, history, policy):
        backoff = _doubled(memory, max(policy.reversal_backoff, rules.cooldown), policy)
    return replace(
        tally.counted(memory, case.fleet),
        consecutive_wins=0,
        winner=None,
        cooldown_until=case.now + rules.cooldown,
        backoff_seconds=_seconds(backoff),
        backoff_until=case.now + backoff if backoff else None,
        next_time=case.now + rules.interval,
    )


def after_failure(case: Case, why: Verdict) -> ReassessmentStatus:
    """The memory when a change was taken back. What it was to put right is weighed again when the back-off is
    over."""
    memory = case.memory
    backoff = _doubled(memory, case.policy.failure_backoff, case.policy)
    never_selected = memory.last_time is None or memory.decision is Decision.SELECT
    return replace(
        memory,
        decision=Decision.BLOCKED,
        reason=why.reason,
        message=why.message,
        consecutive_wins=0,
        winner=None,
        backoff_seconds=_seconds(backoff),
        backoff_until=case.now + backoff,
        last_time=None if never_selected else memory.last_time,
        trigger=None if never_selected else Cause.INTERVAL.value,
        triggered_at=memory.triggered_at if never_selected else case.now,
    )


def _is_reversal(to: Served, history: Sequence[HistoryEntry], policy: Policy) -> bool:
    """It goes back to what one of the last changes left. The stopgap before the first selection was no
    choice."""
    left = [entry.from_ for entry in history if entry.result == "Promoted"][-policy.reversal_changes :]
    return any(old and old.answers_as(to) for old in left)


def _doubled(memory: ReassessmentStatus, base: timedelta, policy: Policy) -> timedelta:
    longer = timedelta(seconds=policy.backoff_factor * memory.backoff_seconds)
    return min(policy.max_backoff, max(base, longer))


def _seconds(length: timedelta) -> int:
    return -int(-length.total_seconds() // 1)
