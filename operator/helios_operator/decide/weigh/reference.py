"""The reference: what serves before anything is measured, and when nothing that was measured is feasible.

Called by `rollout` when nothing serves. The first candidate that fits, at full depth, or as deep as fits.
"First" is by what is known of them (the author's claim, then depth), never by name or place. It must not
weigh an SLO.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from helios_contract.serves import Precision

from helios_operator.api.reasons import Reason
from helios_operator.api.types import HistoryEntry, SelectionPolicy
from helios_operator.decide.facts.candidates import Contender, depth_problem, legal_depths
from helios_operator.decide.plan import Verdict
from helios_operator.decide.snapshot import JobKind, JobPhase
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.options import Option


def choose(case: Case, failed: tuple[HistoryEntry, ...] = ()) -> Option | Verdict:
    """The option, or why there is none yet. What `failed` to start comes last."""
    bounds = case.spec.limits.layer_budget
    if problem := depth_problem(case.bench.contenders, bounds):
        return Verdict(False, Reason.INVALID_SPEC, problem)
    contenders = _in_order(case)
    found = [contender for contender in contenders if contender.resolved]
    if len(found) < len(contenders) and not (found and case.scene.looked):
        return Verdict(False, Reason.STARTING, f"the candidates are being inspected{_held_up(case)}")
    contenders = found
    if not contenders:
        return Verdict(False, Reason.NO_FEASIBLE_CANDIDATE, f"no candidate can be served: {_why_none(case)}")
    tried = {
        (entry.to.candidate, entry.to.layer_budget, entry.to.precision)
        for entry in failed
        if entry.result == "Failed"
    }
    options = sorted(_deepest_that_fit(contenders, case), key=lambda option: not _is_deepest(option, case))
    untried = [option for option in options if tried_as(option) not in tried]
    if options:
        return (untried or options)[0]
    return _nothing_fits(contenders, case)


def tried_as(option: Option) -> tuple[str, int, Precision]:
    """By what a failed start is known again."""
    return (option.contender.name, option.layer_budget, option.precision)


def _held_up(case: Case) -> str:
    """What the Job that looks at them waits for, in the words of whoever runs it."""
    inspects = [job for job in case.snapshot.jobs if job.spec.kind is JobKind.INSPECT]
    said = next((job.message for job in inspects if job.phase is JobPhase.RUNNING and job.message), "")
    return f": {said}" if said else ""


def _in_order(case: Case) -> list[Contender]:
    selection = case.spec.selection
    pinned = selection.candidate if selection.policy is SelectionPolicy.PINNED else None
    contenders = [c for c in case.bench.contenders if c.competes and pinned in (None, c.name)]
    return sorted(contenders, key=_seniority)


def _seniority(contender: Contender) -> tuple[object, ...]:
    """The one whose author claims most, then the largest, then the deepest: the safe choice until it is
    measured."""
    published, resolved = contender.published, contender.resolved
    return (
        -(published.quality_percent or 0),
        -(published.parameters_millions or 0),
        -(resolved.num_layers if resolved else 0),
        contender.key,
    )


def _deepest_that_fit(contenders: list[Contender], case: Case) -> Iterator[Option]:
    """One for each candidate that fits at all, and for each precision that does so deep; an untimed one is
    believed to, and all are where nobody knows how much memory there is."""
    for contender in contenders:
        for layer in reversed(_depths(contender, case)):
            options = [_option(contender, layer, precision, case) for precision in contender.precisions]
            fitting = [option for option in options if option.performance or _is_believed(option, case)]
            if fitting:
                yield from fitting
                break


def _is_deepest(option: Option, case: Case) -> bool:
    return option.layer_budget == _depths(option.contender, case)[-1]


def _depths(contender: Contender, case: Case) -> tuple[int, ...]:
    return legal_depths(contender, case.spec.limits.layer_budget)


def _option(contender: Contender, layer: int, precision: Precision, case: Case) -> Option:
    """What is believed to fit: the pod itself finds out how many rows do."""
    option = case.bench.option(contender, layer, precision, None)
    if _is_believed(option, case):
        return replace(option, max_batch_size=case.spec.limits.max_batch_size or 0)
    return option


def _is_believed(option: Option, case: Case) -> bool:
    """Nobody knows better. Of several precisions, one whose weights are known not to fit is not."""
    if not case.bench.memory_mib:
        return True
    several = len(option.contender.precisions) > 1
    overfull = several and case.bench.overfull(option.contender, option.precision)
    return option.timing is None and not overfull


def _why_none(case: Case) -> str:
    reasons = [f"{c.name}: {c.turned_away.message}" for c in case.bench.contenders if c.turned_away]
    return "; ".join(reasons) or "the spec names none"


def _nothing_fits(contenders: list[Contender], case: Case) -> Verdict:
    needs = {c.name: case.bench.least_mib(c, depths[0]) for c in contenders if (depths := _depths(c, case))}
    if not needs:
        return Verdict(False, Reason.OUT_OF_BUDGET, "no exit is within limits.layerBudget")
    least = min(needs, key=lambda name: needs[name])
    message = (
        f"{least} needs {needs[least]} MiB for one request at its shallowest allowed depth, "
        f"{case.bench.memory_mib} MiB given; raise limits.memoryMiB, or lower workload.isl, workload.osl, "
        "limits.layerBudget.min or limits.maxContextTokens"
    )
    return Verdict(False, Reason.NOT_ENOUGH_MEMORY, message)
