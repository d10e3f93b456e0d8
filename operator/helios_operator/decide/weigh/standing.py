"""Does what serves still meet the SLO, on this evidence? And how do its alternatives compare, in one line?

Called by `reassess`. What serves is given the benefit of the doubt that an alternative is not: it is
infeasible only when the evidence says so, an alternative is feasible only when the evidence says so. It must
not choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from helios_contract.telemetry import TaskCounts

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Decision, DeploymentSpec
from helios_operator.decide.facts.quality import tenth, whole
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.weigh import remedies, select
from helios_operator.decide.weigh.options import Option

_REMEDIES = (Decision.SHRINK, Decision.SWAP_HEADS, Decision.GROW, Decision.REQUANTIZE, Decision.SWITCH)
"""The cheapest first."""


class Standing(StrEnum):
    FEASIBLE = "Feasible"
    INFEASIBLE = "Infeasible"
    UNSURE = "Unsure"


@dataclass(frozen=True)
class Judgement:
    state: Standing
    verdict: Verdict


def standing_of(
    current: Option, spec: DeploymentSpec, policy: Policy = DEFAULT, *, confirmed: bool
) -> Judgement:
    """`confirmed`: an alarm stands behind the evidence, so its mean is believed; without one, its bound."""
    return (
        _memory(current)
        or _quality(current, spec, policy, confirmed)
        or _latency(current, spec)
        or _tasks(current, spec)
        or Judgement(Standing.FEASIBLE, current.verdict)
    )


def _memory(current: Option) -> Judgement | None:
    """The spec gives less than it did."""
    if current.verdict.reason == Reason.NOT_ENOUGH_MEMORY:
        return Judgement(
            Standing.INFEASIBLE, replace(current.verdict, message=f"{current} {current.verdict.message}")
        )
    return None


def _quality(current: Option, spec: DeploymentSpec, policy: Policy, confirmed: bool) -> Judgement | None:
    for what, estimate, target in (
        ("quality", current.quality, select.minimum_quality(spec.slo, policy)),
        ("agreement", current.agreement, spec.slo.min_agreement_percent),
    ):
        if target is None:
            continue
        if estimate is None:
            verdict = Verdict(False, Reason.NO_EVIDENCE, f"{what} of {current} is not known on this evidence")
            return Judgement(Standing.UNSURE, verdict)
        if estimate.low >= target:
            continue
        bounds = f"{tenth(estimate.low)} to {tenth(estimate.high)}"
        text = f"{current} has {what} {whole(estimate.mean)} % ({bounds}), {target} asked"
        if estimate.high < target or (confirmed and estimate.mean < target):
            return Judgement(Standing.INFEASIBLE, Verdict(False, Reason.QUALITY_MISSED, text))
        return Judgement(Standing.UNSURE, Verdict(False, Reason.WITHIN_NOISE, text))
    return None


def _latency(current: Option, spec: DeploymentSpec) -> Judgement | None:
    """By the mean: that a percentile's bound is above the target is no reason to leave what serves."""
    performance, slo = current.performance, spec.slo
    if performance is None:
        return None
    mean = performance.expected
    for what, predicted, target in (
        ("ttft", mean.ttft_ms, slo.ttft_ms),
        ("itl", mean.itl_ms, slo.itl_ms),
        ("e2e latency", mean.e2e_ms, slo.e2e_latency_ms),
    ):
        if target is not None and predicted > target:
            text = f"{current} has a mean {what} of {predicted:.0f} ms, {target} ms asked"
            return Judgement(Standing.INFEASIBLE, Verdict(False, Reason.LATENCY_MISSED, text))
    return None


def _tasks(current: Option, spec: DeploymentSpec) -> Judgement | None:
    """By the mean: the tasks are the user's own and always the same, so that waiting brings no more of
    them. What is not known, or not to be known, takes nothing down."""
    target, share = spec.slo.min_task_percent, current.tasks
    if target is None or share is None:
        return None
    if share.why:
        text = f"{current}: {share.why.message}"
        return Judgement(Standing.UNSURE, replace(share.why, message=text))
    estimate = share.estimate
    if estimate is None or estimate.mean >= target:
        return None
    bounds = f"{estimate.low:.1f} to {estimate.high:.1f}"
    text = f"{current} passes {estimate.mean:.1f} % of the tasks ({bounds}), {target} asked"
    return Judgement(Standing.INFEASIBLE, Verdict(False, Reason.TASKS_MISSED, text))


def fallen(current: Option, counts: Sequence[TaskCounts]) -> Judgement:
    """By an alarm of the pods themselves, whatever its profile says."""
    asked, passed = sum(each.asked for each in counts), sum(each.passed for each in counts)
    text = f"{current} passes {passed} of {asked} tasks that its profile says it passes"
    return Judgement(Standing.INFEASIBLE, Verdict(False, Reason.TASKS_MISSED, text))


def weighed(judged: Sequence[Option], current: Option) -> tuple[str, dict[str, float]]:
    """The best of each kind of remedy: "Grow to 27: quality 94 % (at least 92.1), 182 tok/s; SwapHeads to
    code at 24: quality 87.0 % < 90", and the same as numbers."""
    best: dict[Decision, Option] = {}
    for option in judged:
        kind = remedies.kind_of(option, current)
        if kind is not Decision.KEEP:
            best.setdefault(kind, option)
    lines: list[str] = []
    figures: dict[str, float] = {}
    for kind in _REMEDIES:
        if kind in best:
            option = best[kind]
            what = select.describe(option).split(": ", 1)[1] if option.verdict.ok else option.verdict.message
            lines.append(f"{remedies.named(kind, option, option.precision)}: {what}")
            figures |= {f"{kind}.{name}": number for name, number in select.numbers(option).items()}
    return "; ".join(lines), figures
