"""Each rule's guarding expression, and what deleting or weakening it is. The rule's law must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`law`: name of the law that must break when `old` reads `new` in `module`. A rule that is guarded in
    two places is deleted in both: `also`."""

    law: str
    module: str
    old: str
    new: str
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def edits(self) -> tuple[tuple[str, str, str], ...]:
        return ((self.module, self.old, self.new), *self.also)


MUTANTS = (
    # -- serving is never taken away
    Mutant("serving is never taken away", "starting", "if all_ready(pending) and", "if True and"),
    Mutant("serving is never taken away", "ending", "if not is_empty(revision):", "if False:"),
    Mutant(
        "serving is never taken away",
        "strategy",
        "path = _in_place(option, reachable,",
        "return _go(Way.RECREATE, Reason.OUTAGE_BY_RECREATE, fits.message)\n"
        "    path = _in_place(option, reachable,",
    ),
    Mutant("no request is lost", "starting", "if all_ready(pending) and", "if True and"),
    # -- an infeasible SLO or a failed profile never takes the running model down
    Mutant(
        "an infeasible SLO takes nothing down",
        "reassess",
        "feasible = [option for option in others if option.verdict.ok]",
        "feasible = list(others)",
    ),
    Mutant(
        "an infeasible SLO takes nothing down",
        "select",
        "if target is not None and predicted > target:",
        "if False:",
    ),
    Mutant(
        "the first choice is measured",
        "reassess",
        "    if not case.measuring_done:\n        return _note(\n            case, None",
        "    if False:\n        return _note(\n            case, None",
    ),
    # -- at most one change in flight
    Mutant(
        "one change at a time",
        "fleet",
        "return bool(self.pending or self.retired or self.behind or self.target or self.analysing)",
        "return False",
        also=(("dispatch", "    if fleet.retired:\n        return ending.retire(step)\n    if", "    if"),),
    ),
    # -- no flapping
    Mutant(
        "no flapping",
        "hysteresis",
        "return Verdict(count >= limit, Reason.WAITING_FOR_WINS",
        "return Verdict(True, Reason.WAITING_FOR_WINS",
    ),
    Mutant(
        "no flapping",
        "hysteresis",
        "return before + 1 if has_new_evidence(case) else before",
        "return before + 1",
    ),
    Mutant(
        "no flapping",
        "hysteresis",
        "    until = case.memory.cooldown_until\n    if until and case.now < until:",
        "    until = case.memory.cooldown_until\n    if until and False:",
    ),
    Mutant("no flapping", "hysteresis", "if percent < rules.min_improvement_percent:", "if False:"),
    Mutant("no flapping", "hysteresis", "before = case.memory.consecutive_wins if same else 0", "before = 9"),
    # -- back-off
    Mutant("back-off doubles", "hysteresis", "max(base, longer))", "base)"),
    Mutant("back-off doubles", "hysteresis", "and _is_reversal(to, history, policy):", "and False:"),
    Mutant("back-off doubles", "reassess", "    if not backed_off.ok:", "    if False:"),
    # -- cold samples
    Mutant(
        "cold samples are no evidence",
        "gathering",
        "_most_telling(alarms, case), case.policy.min_audits\n    if len(audits) < least:",
        "_most_telling(alarms, case), case.policy.min_audits\n    if not audits:",
    ),
    Mutant("cold samples are no evidence", "gathering", "is_cold = since < cold", "is_cold = False"),
    # -- counting
    Mutant(
        "requests are counted once",
        "tally",
        "requests=count if known.requests is None else known.requests",
        "requests=known.requests or 0",
    ),
    Mutant(
        "requests are counted once",
        "tally",
        "requests=reached.get(pod.name)) for",
        "requests=pod.requests) for",
    ),
    Mutant(
        "requests are counted once",
        "tally",
        "max(0, telemetry.requests_finished - pod.requests)",
        "max(0, telemetry.requests_finished)",
    ),
    Mutant("clocks", "tally", "or _first_heard(alarm, memory, now)", "or alarm.time"),
    # -- repairs
    Mutant(
        "repairs need only an alarm",
        "reassess",
        "backed_off = hysteresis.backed_off(case)",
        "backed_off = hysteresis.cooled_down(case)",
    ),
    Mutant(
        "repairs need only an alarm",
        "reassess",
        "return _repair(case, current, judged, evidence, standing.verdict)",
        "return _unsure(case, evidence, standing.verdict)",
    ),
    Mutant(
        "repairs need only an alarm",
        "gathering",
        "if found and found.digest and first is not None and found.from_request >= first:",
        "if False:",
    ),
    Mutant(
        "repairs need only an alarm",
        "gathering",
        "return quality.are_other_texts(live, profiled, case.policy)",
        "return False",
    ),
    # -- limits and heads restart no pod
    Mutant("limits restart no pod", "strategy", "if same_backbone and reachable:", "if False:"),
    # -- decision memory is in the API
    Mutant(
        "memory is in the API",
        "hysteresis",
        "    count, limit = wins(best, case), case.spec",
        "    SEEN.append(1)\n    count, limit = len(SEEN), case.spec",
        also=(("hysteresis", "ASKED_FOR = frozenset", "SEEN: list[int] = []\nASKED_FOR = frozenset"),),
    ),
    # -- Auto
    Mutant("auto says which and why", "strategy", "    if needed > free:", "    if False:"),
    Mutant("auto says which and why", "strategy", 'f"Auto chose InPlace: {fits.message}"', '"in place"'),
    Mutant("auto says which and why", "strategy", 'f"Auto chose Surge: {fits.message}"', '"surge"'),
    # -- choices
    Mutant("choices fit", "candidates", "if lowest <= layer <= highest", "if layer"),
    Mutant(
        "choices fit", "options", "limit_bytes=self.memory_mib * MIB", "limit_bytes=3 * self.memory_mib * MIB"
    ),
    Mutant("noise is never chosen", "select", "if estimate.low < target:", "if False:"),
    # -- what the user holds
    Mutant(
        "what is held is held",
        "reassess",
        "    if paused_by := case.snapshot.deployment.paused_by:",
        '    if paused_by := "":',
    ),
    Mutant(
        "what is held is held",
        "reassess",
        "    if spec.selection.policy is SelectionPolicy.ADVISORY:",
        "    if False:",
    ),
    Mutant(
        "what is held is held",
        "reassess",
        "    if spec.reassessment.suspend and kind is not Decision.SELECT:",
        "    if False:",
    ),
    Mutant(
        "what is held is held",
        "reassess",
        "    if kind is Decision.SWITCH and maintenance:",
        "    if False:",
    ),
    Mutant(
        "old pods stay as long as asked",
        "ending",
        "    if since and step.case.now < since + delay:",
        "    if False:",
    ),
    # -- it settles
    Mutant("it settles", "limits", "return None if current == renewed else replace(", "return replace("),
    Mutant(
        "it settles",
        "fleet",
        "    return max((*written, *known), default=0) + 1",
        "    return 1",
    ),
    # -- precisions
    Mutant(
        "auto alone is as it was",
        "precisions",
        "weights = candidate.weight_dtypes or DEFAULT_DTYPES",
        "weights = DEFAULT_DTYPES",
    ),
    Mutant("choices fit", "precisions", "if precision in wanted)", "if precision)"),
    Mutant(
        "limits restart no pod",
        "strategy",
        "if same_backbone and reachable:",
        "if same_backbone and reachable and option.precision == routed.limits.precision:",
    ),
    Mutant(
        "a precision is not had again and again",
        "evidence",
        "(self.is_other_traffic and ratio.mean < 100)",
        "False",
        also=(("gathering", "(case.several_precisions and is_other_traffic)", "False"),),
    ),
    Mutant(
        "orders",
        "precisions",
        "return tuple(precision for precision in ORDER if precision in wanted)",
        "return tuple(Precision(*pair) for pair in product(weights, keys) if wanted)",
    ),
    # -- names
    Mutant(
        "names",
        "options",
        "return (self.contender.key, self.layer_budget, ",
        "return ((self.contender.name, '', '', ()), self.layer_budget, ",
    ),
)
