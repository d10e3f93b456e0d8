"""Is what serves still right? The first selection, and every reassessment after it.

Called by `decide` each pass; most passes find nothing due. A repair (what serves is infeasible) takes the
cheapest remedy that evidence supports; an optimisation must win, pay and wait its turn. It must not touch
pods or jobs: it answers with a Change for `rollout` to carry out, and with what to remember.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Decision, MaintenanceWindow, ReassessmentStatus, SelectionPolicy
from helios_operator.decide.facts import tally, window
from helios_operator.decide.facts.evidence import Evidence
from helios_operator.decide.plan import Verdict
from helios_operator.decide.weigh import gathering, hysteresis, remedies, select, triggers
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.standing import Standing, fallen, standing_of, weighed
from helios_operator.decide.weigh.strategy import Path, path_for
from helios_operator.decide.weigh.triggers import Call, Cause

RESTORED: dict[str, Reason] = {
    Reason.LATENCY_MISSED: Reason.LATENCY_RESTORED,
    Reason.NOT_ENOUGH_MEMORY: Reason.NOT_ENOUGH_MEMORY,
    Reason.TASKS_MISSED: Reason.TASKS_RESTORED,
}
"""What a repair restores, by what was missed; else quality."""
_UNKNOWN_TASKS = (Reason.TOO_FEW_TASKS, Reason.NO_TASKS, Reason.TASKS_NOT_MEASURED)
"""They are neither met nor missed."""


@dataclass(frozen=True)
class Change:
    """To be carried out now: what serves next, by which way, resting on which evidence."""

    kind: Decision
    option: Option
    path: Path
    evidence: Evidence | None
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """`waiting`: a change that is wanted and cannot be made yet. `call`: what started a reassessment in this
    pass."""

    memory: ReassessmentStatus
    change: Change | None = None
    waiting: Verdict | None = None
    call: Call | None = None


def reassess(case: Case) -> Outcome:
    if case.fleet.serving is None:
        return Outcome(case.memory)
    if case.memory.last_time is None and _wish(case) is None:
        return Outcome(case.memory) if case.fleet.in_flight else _first_selection(case)
    memory, call = triggers.opened(case)
    case = case.remembering(memory)
    if case.fleet.in_flight or memory.trigger is None:
        return Outcome(memory, call=call)
    outcome = _switch_by_hand(case) or _weigh(case)
    return replace(outcome, call=call)


# -- the first choice ----------------------------------------------------------------------------------------


def _first_selection(case: Case) -> Outcome:
    """As soon as everything is measured; until then, and when nothing is feasible, the reference serves."""
    if not case.measuring_done:
        return _note(
            case, None, Verdict(False, Reason.NOT_PROFILED, "the reference serves until all is measured")
        )
    evidence = case.profiles
    current, judged = case.current_on(evidence), case.allowed_on(evidence)
    best = next((option for option in judged if option.verdict.ok), None)
    if best is None and (unknown := _unknown_tasks(judged)):
        return _note(case, Decision.INCONCLUSIVE, unknown)
    unprompted = [o.verdict for o in judged if o.verdict.reason == Reason.NO_PROMPTS]
    if best is None and unprompted and not case.must_leave:
        return _note(case, Decision.INCONCLUSIVE, unprompted[0])
    if best is None:
        return _nothing_feasible(case, judged, current, evidence)
    verdict = Verdict(
        True,
        _first_reason(case),
        f"{select.describe(best)}; {_against(case, judged, best)}",
        select.numbers(best),
    )
    if current and best.service == current.service:
        return _conclude(case, Decision.KEEP, verdict)
    return _commit(case, Decision.SELECT, best, evidence, verdict)


def _unknown_tasks(judged: tuple[Option, ...]) -> Verdict | None:
    """The best meets all that is asked but for the tasks, of which nobody can tell."""
    best = min(judged, key=lambda option: option.verdict.reason not in _UNKNOWN_TASKS, default=None)
    return best.verdict if best and best.verdict.reason in _UNKNOWN_TASKS else None


def _first_reason(case: Case) -> Reason:
    return Reason.PINNED if case.spec.selection.policy is SelectionPolicy.PINNED else Reason.FIRST_SELECTION


def _against(case: Case, judged: tuple[Option, ...], best: Option) -> str:
    """The best of what was not chosen, and why not: first what would have been better, were it feasible."""
    others = sorted(
        (option for option in judged if option.service != best.service),
        key=lambda option: select.merit(option, case.spec),
    )
    said = [f"{o}: {o.verdict.message if not o.verdict.ok else 'slower'}" for o in others[:3]]
    return "; ".join(said) if said else "no other option"


def _nothing_feasible(
    case: Case, judged: tuple[Option, ...], current: Option | None, evidence: Evidence | None
) -> Outcome:
    """What serves is kept, unless the spec no longer allows it: then the best that fits succeeds it."""
    reasons = "; ".join(f"{option}: {option.verdict.message}" for option in judged[:4]) or "no option at all"
    verdict = Verdict(False, Reason.NO_FEASIBLE_CANDIDATE, f"nothing is feasible: {reasons}")
    if leave := case.must_leave:
        fitting = [option for option in judged if option.performance]
        if fitting:
            deepest = max(fitting, key=lambda o: (o.quality.low if o.quality else 0.0, o.layer_budget))
            why = Verdict(True, triggers.why_to_leave(case), f"{leave}; {verdict.message}")
            return _commit(case, _kind(case, deepest), deepest, evidence, why)
    return _note(case, Decision.KEEP, verdict)


# -- by hand -------------------------------------------------------------------------------------------------


def _wish(case: Case) -> str | None:
    """The candidate that a person asks to switch to, not answered yet."""
    request = triggers.request_by_hand(case)
    if request is None or request.switch_to is None:
        return None
    under_way = case.memory.trigger == Cause.MANUAL
    return request.switch_to if under_way or triggers.is_unanswered(request, case.memory) else None


def _switch_by_hand(case: Case) -> Outcome | None:
    if case.memory.trigger != Cause.MANUAL or (name := _wish(case)) is None:
        return None
    evidence = gathering.gather(case).evidence or case.profiles
    options = [option for option in case.scene.judged_on(evidence) if option.contender.name == name]
    fitting = [option for option in options if option.performance]
    if not fitting:
        message = f"{name} cannot be served: {options[0].verdict.message if options else 'no such candidate'}"
        return _conclude(case, Decision.BLOCKED, Verdict(False, Reason.BY_HAND, message))
    current = case.current_on(evidence)
    verdict = Verdict(True, Reason.BY_HAND, f"{select.describe(fitting[0])}; {fitting[0].verdict.message}")
    if current and current.service == fitting[0].service:
        return _conclude(case, Decision.KEEP, verdict)
    return _commit(case, _kind(case, fitting[0]), fitting[0], evidence, verdict, by_hand=True)


# -- reassessment --------------------------------------------------------------------------------------------


def _weigh(case: Case) -> Outcome:
    gathered = gathering.gather(case)
    evidence = gathered.evidence
    current = case.current_on(evidence)
    if leave := case.must_leave:
        return _replace(case, leave, evidence or case.profiles)
    if current is None or not gathered.verdict.ok:
        return (
            _wait(case, gathered)
            if gathered.wait
            else _conclude(case, Decision.INCONCLUSIVE, gathered.verdict)
        )
    judged = case.allowed_on(evidence)
    standing = standing_of(current, case.spec, case.policy, confirmed=case.memory.trigger == Cause.ALARM)
    if triggers.fallen_tasks(case):
        standing = fallen(current, [told.tasks for told in case.fleet.telemetry if told.tasks])
    match standing.state:
        case Standing.INFEASIBLE:
            return _repair(case, current, judged, evidence, standing.verdict)
        case Standing.UNSURE:
            return _unsure(case, evidence, standing.verdict)
        case Standing.FEASIBLE:
            return _optimise(case, current, judged, evidence)


def _replace(case: Case, leave: str, evidence: Evidence | None) -> Outcome:
    """The spec took away what serves: its successor is chosen as the first one was, and serves first."""
    if not case.measuring_done:
        return _note(
            case,
            Decision.BLOCKED,
            Verdict(False, Reason.MEASURING, f"{leave}; its successor is being measured"),
        )
    current, judged = case.current_on(evidence), case.allowed_on(evidence)
    best = next((option for option in judged if option.verdict.ok), None)
    if best is None:
        return _nothing_feasible(case, judged, current, evidence)
    message = f"{leave}; {select.describe(best)}"
    verdict = Verdict(True, triggers.why_to_leave(case), message, select.numbers(best))
    return _commit(case, _kind(case, best), best, evidence, verdict)


def _repair(
    case: Case, current: Option, judged: tuple[Option, ...], evidence: Evidence | None, missed: Verdict
) -> Outcome:
    """The cheapest remedy that the evidence supports; within one class of cost, the best objective."""

    def preference(option: Option) -> tuple[object, ...]:
        return (remedies.effort(option, current), *select.merit(option, case.spec))

    others = [option for option in judged if option.service != current.service]
    feasible = [option for option in others if option.verdict.ok] or _but_for_tasks(others, missed)
    straddling = [
        option for option in others if select.may_be_good_enough(option, case.spec.slo, case.policy)
    ]
    line, figures = weighed(judged, current)
    if not feasible:
        verdict = Verdict(False, missed.reason, f"{missed.message}; {line}", figures)
        return _no_remedy(case, evidence, straddling, verdict)
    pick = min(feasible, key=preference)
    better = [option for option in straddling if preference(option) < preference(pick)]
    if better and _is_thin(evidence, case):
        message = f"{missed.message}; {better[0]} may be enough: {better[0].verdict.message}"
        return _note(case, Decision.INCONCLUSIVE, Verdict(False, Reason.WITHIN_NOISE, message, figures))
    reason = RESTORED.get(missed.reason, Reason.QUALITY_RESTORED)
    if reason is Reason.NOT_ENOUGH_MEMORY and triggers.is_edited(case):
        reason = Reason.SPEC_CHANGED
    source = f" ({evidence.source})" if evidence else ""
    known = "" if pick.verdict.ok else f"; {select.describe(pick)}, as far as is known"
    verdict = Verdict(True, reason, f"{missed.message}{known}; {line}{source}", figures)
    return _commit(case, _kind(case, pick), pick, evidence, verdict)


def _but_for_tasks(others: list[Option], missed: Verdict) -> list[Option]:
    """What meets all that is asked, as far as that is known: tasks of which nobody can tell keep nothing
    from being put right but tasks."""
    if missed.reason == Reason.TASKS_MISSED:
        return []
    return [option for option in others if option.verdict.reason in _UNKNOWN_TASKS]


def _no_remedy(case: Case, evidence: Evidence | None, straddling: list[Option], verdict: Verdict) -> Outcome:
    """More audits may settle it; else another backbone must be measured on this traffic; else what serves is
    kept."""
    if straddling and _is_thin(evidence, case):
        return _note(case, Decision.INCONCLUSIVE, replace(verdict, reason=Reason.WITHIN_NOISE))
    if case.several_backbones and not case.memory.prompts:
        alarms = triggers.pending_alarms(case)
        since = gathering.since_alarms(alarms) or tally.since_trigger(case.memory, case.fleet)
        fresh = gathering.on_fresh_prompts(case, since)
        if fresh.wait:
            message = f"{verdict.message}; {fresh.verdict.message}"
            return _wait(case, replace(fresh, verdict=replace(fresh.verdict, message=message)))
    return _conclude(case, Decision.KEEP, replace(verdict, reason=Reason.NO_FEASIBLE_OPTION))


def _unsure(case: Case, evidence: Evidence | None, verdict: Verdict) -> Outcome:
    """An alarm waits for more audits, tasks for the Job that asks them; otherwise the next reassessment will
    have more."""
    if verdict.reason == Reason.TASKS_NOT_MEASURED and not case.measuring_done:
        return _note(case, Decision.INCONCLUSIVE, verdict)
    if case.memory.trigger == Cause.ALARM and _is_thin(evidence, case):
        return _note(case, Decision.INCONCLUSIVE, verdict)
    return _conclude(case, Decision.INCONCLUSIVE, verdict)


def _is_thin(evidence: Evidence | None, case: Case) -> bool:
    return evidence is None or evidence.samples < case.policy.enough_audits


def _optimise(case: Case, current: Option, judged: tuple[Option, ...], evidence: Evidence | None) -> Outcome:
    best = next((option for option in judged if option.verdict.ok), current)
    objective = case.spec.slo.optimization_type
    if best.service == current.service or select.value(best, objective) <= select.value(current, objective):
        message = f"{select.describe(current)}; nothing is better"
        return _conclude(
            case, Decision.KEEP, Verdict(True, Reason.ALREADY_BEST, message, select.numbers(current))
        )
    path = _path(case, best)
    gain = hysteresis.gain(best, current, path.way, case)
    if not gain.ok:
        return _conclude(case, Decision.KEEP, gain)
    enough = hysteresis.enough_wins(best, case)
    if not enough.ok:
        count = hysteresis.wins(best, case)
        return _conclude(
            case, Decision.KEEP, replace(enough, numbers=gain.numbers), count, hysteresis.label(best)
        )
    cooled = hysteresis.cooled_down(case)
    if not cooled.ok:
        return _note(case, Decision.BLOCKED, replace(cooled, message=f"{gain.message}; {cooled.message}"))
    source = f" ({evidence.source})" if evidence else ""
    verdict = replace(
        gain,
        message=f"{gain.message}: {select.describe(best)}{source}",
        numbers=gain.numbers | select.numbers(best),
    )
    return _commit(case, _kind(case, best), best, evidence, verdict)


# -- committing ----------------------------------------------------------------------------------------------


def _kind(case: Case, option: Option) -> Decision:
    return remedies.kind_of(option, case.described) if case.described else Decision.SWITCH


def _path(case: Case, option: Option) -> Path:
    backbone = case.resolved.backbone if case.resolved else ""
    return path_for(option, case.revision, backbone, case.snapshot)


def _commit(
    case: Case,
    kind: Decision,
    option: Option,
    evidence: Evidence | None,
    verdict: Verdict,
    by_hand: bool = False,
) -> Outcome:
    """The change, unless something holds it; what is held stays on the table and is weighed again."""
    path = _path(case, option)
    hold = _hold(case, kind, path, by_hand)
    if hold is None:
        memory = _closed(case, kind, verdict)
        return Outcome(memory, Change(kind, option, path, evidence, verdict))
    wanted = remedies.named(kind, option, option.precision)
    blocked = replace(hold, message=f"{wanted} is wanted ({verdict.message}): {hold.message}")
    if hold.reason == Reason.ADVISORY and case.memory.last_time is not None:
        return _conclude(case, Decision.BLOCKED, blocked)
    return replace(_note(case, Decision.BLOCKED, blocked), waiting=hold if path.way is None else None)


def _hold(case: Case, kind: Decision, path: Path, by_hand: bool) -> Verdict | None:
    spec = case.spec
    if paused_by := case.snapshot.deployment.paused_by:
        return Verdict(False, Reason.PAUSED, paused_by)
    if path.way is None:
        return path.verdict
    if by_hand:
        return None
    if spec.selection.policy is SelectionPolicy.ADVISORY:
        return Verdict(False, Reason.ADVISORY, "selection.policy is Advisory, so nothing is changed")
    if spec.reassessment.suspend and kind is not Decision.SELECT:
        return Verdict(False, Reason.SUSPENDED, "reassessment.suspend is true")
    backed_off = hysteresis.backed_off(case)
    if not backed_off.ok:
        return backed_off
    maintenance = spec.reassessment.maintenance_window
    if kind is Decision.SWITCH and maintenance:
        return _outside(maintenance, case)
    return None


def _outside(maintenance: MaintenanceWindow, case: Case) -> Verdict | None:
    """Not within the window: when it opens, or why it never does."""
    try:
        if window.is_open(maintenance, case.now):
            return None
        opens = window.next_start(maintenance, case.now)
    except ValueError as error:
        message = f"spec.reassessment.maintenanceWindow.{error}; write each range from its lower end"
        return Verdict(False, Reason.OUTSIDE_WINDOW, message)
    when = f"opens {opens:%Y-%m-%d %H:%M}" if opens else "never opens: no month has this day"
    message = f"switching waits for the window {maintenance.schedule!r} (UTC), which {when}"
    return Verdict(False, Reason.OUTSIDE_WINDOW, message)


def _note(case: Case, decision: Decision | None, verdict: Verdict) -> Outcome:
    """Said and remembered; the reassessment stays under way."""
    return Outcome(replace(case.memory, decision=decision, reason=verdict.reason, message=verdict.message))


def _wait(case: Case, gathered: gathering.Gathered) -> Outcome:
    outcome = _note(case, Decision.INCONCLUSIVE, gathered.verdict)
    return replace(outcome, memory=replace(outcome.memory, prompts=gathered.prompts))


def _conclude(
    case: Case, decision: Decision, verdict: Verdict, wins: int = 0, winner: str | None = None
) -> Outcome:
    return Outcome(replace(_closed(case, decision, verdict), consecutive_wins=wins, winner=winner))


def _closed(case: Case, decision: Decision, verdict: Verdict) -> ReassessmentStatus:
    memory = tally.counted(case.memory, case.fleet) if hysteresis.has_new_evidence(case) else case.memory
    return replace(
        tally.concluded(memory, case.fleet, case.now),
        decision=decision,
        reason=verdict.reason,
        message=verdict.message,
        next_time=case.now + case.spec.reassessment.interval,
        trigger=None,
        prompts="",
    )
