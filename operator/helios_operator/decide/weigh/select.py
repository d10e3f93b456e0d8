"""Which option: feasible first, then the best pessimistic bound of the objective.

Called by `reassess` (which asks whether a change pays) and by `status` (which shows every candidate's best).
Ties go to the higher quality, then to what the option is; a name or a place in a list never counts. It must
not know what serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from helios_operator.api.reasons import Reason
from helios_operator.api.types import DeploymentSpec, Objective, Slo
from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.facts.quality import Estimate, tenth, whole
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.weigh.options import Option, Performance


def ranked(options: Sequence[Option], spec: DeploymentSpec, policy: Policy = DEFAULT) -> tuple[Option, ...]:
    """Judged, the best first."""
    judged = (judge(option, spec, policy) for option in options)
    return tuple(sorted(judged, key=lambda option: rank(option, spec)))


def judge(option: Option, spec: DeploymentSpec, policy: Policy = DEFAULT) -> Option:
    """The option with the first thing that speaks against it, or with its figures."""
    if not option.verdict.ok:
        return option
    return replace(
        option,
        verdict=_quality(option, spec.slo, policy)
        or _latency(option, spec)
        or _tasks(option, spec.slo)
        or _fine(option),
    )


def rank(option: Option, spec: DeploymentSpec) -> tuple[object, ...]:
    """Sorts best first: feasible, then by merit."""
    return (not option.verdict.ok, *merit(option, spec))


def merit(option: Option, spec: DeploymentSpec) -> tuple[object, ...]:
    """Sorts best first: the objective, then quality, then what it is."""
    estimate = option.quality.low if option.quality else 0.0
    return (-value(option, spec.slo.optimization_type), -estimate, option.key)


def value(option: Option, objective: Objective) -> float:
    """The objective's pessimistic bound, larger is better; minus infinity where it is not known."""
    if objective is Objective.QUALITY:
        return option.quality.low if option.quality else -inf
    performance = option.performance
    if performance is None:
        return -inf
    match objective:
        case Objective.THROUGHPUT:
            return performance.tokens_per_second
        case Objective.LATENCY:
            return -performance.latency_ms
        case Objective.ENERGY:
            return -performance.joules_per_megatoken if performance.joules_per_megatoken is not None else -inf


def improvement_percent(new: Option, old: Option, objective: Objective) -> float:
    """How much better `new` is, in percent of the old figure; both by their pessimistic bounds, so that an
    error of the fit that they share does not count."""
    after, before = value(new, objective), value(old, objective)
    if after == before:
        return 0.0
    if before in (-inf, 0.0):
        return inf
    if after == -inf:
        return -inf
    return 100 * (after - before) / abs(before)


def minimum_quality(slo: Slo, policy: Policy = DEFAULT) -> int | None:
    """Where the SLO asks for neither quality nor agreement: nobody means "as bad as you like"."""
    if slo.min_quality_percent is None and slo.min_agreement_percent is None:
        return policy.default_min_quality_percent
    return slo.min_quality_percent


def may_be_good_enough(option: Option, slo: Slo, policy: Policy = DEFAULT) -> bool:
    """Its bound misses a quality target that its mean meets: more evidence could make it feasible."""
    return option.verdict.reason == Reason.QUALITY_TOO_LOW and all(
        estimate.mean >= target
        for estimate, target in (
            (option.quality, minimum_quality(slo, policy)),
            (option.agreement, slo.min_agreement_percent),
        )
        if estimate and target is not None
    )


def describe(option: Option) -> str:
    """ "chat at 24 layers: quality 94 % (at least 92.1), 182 tok/s with 12 rows"."""
    parts = []
    if option.quality:
        parts.append(f"quality {percent(option.quality)}")
    if option.tasks and option.tasks.estimate:
        share = option.tasks.estimate
        parts.append(f"tasks {share.mean:.0f} % (at least {share.low:.1f})")
    if performance := option.performance:
        said = f"{performance.expected.tokens_per_second:.0f} tok/s with {option.max_batch_size} rows"
        timed = f" (timed up to {performance.timed_rows})" if performance.timed_rows else ""
        parts.append(said + timed)
    what = f"{option.contender.name} at {option.layer_budget} layers{suffix(option.precision)}"
    return f"{what}: {', '.join(parts)}"


def percent(estimate: Estimate) -> str:
    return f"{whole(estimate.mean)} % (at least {tenth(estimate.low)})"


def numbers(option: Option) -> dict[str, float]:
    figures: dict[str, float] = {"layerBudget": option.layer_budget, "maxBatchSize": option.max_batch_size}
    if option.quality:
        figures |= {
            "qualityPercent": whole(option.quality.mean),
            "qualityLowPercent": tenth(option.quality.low),
        }
    if option.tasks and option.tasks.estimate:
        share = option.tasks.estimate
        figures |= {"taskPercent": round(share.mean, 2), "taskLowPercent": round(share.low, 2)}
    if performance := option.performance:
        figures |= _performance_numbers(performance)
    return figures


def _performance_numbers(performance: Performance) -> dict[str, float]:
    figures = {
        "tokensPerSecond": round(performance.expected.tokens_per_second, 1),
        "tokensPerSecondLow": round(performance.tokens_per_second, 1),
        "ttftMs": round(performance.ttft_ms, 1),
        "itlMs": round(performance.itl_ms, 1),
        "e2eMs": round(performance.e2e_ms, 1),
        "latencyMs": round(performance.latency_ms, 1),
    }
    if performance.timed_rows:
        figures["timedRows"] = performance.timed_rows
    if performance.joules_per_megatoken is not None:
        figures["joulesPerMegatoken"] = round(performance.joules_per_megatoken)
    return figures


def _quality(option: Option, slo: Slo, policy: Policy) -> Verdict | None:
    for what, estimate, target in (
        ("quality", option.quality, minimum_quality(slo, policy)),
        ("agreement", option.agreement, slo.min_agreement_percent),
    ):
        if target is None:
            continue
        if estimate is None:
            return Verdict(False, Reason.NOT_PROFILED, f"{what} not measured")
        if estimate.low < target:
            message = f"{what} {percent(estimate)} < {target}"
            return Verdict(False, Reason.QUALITY_TOO_LOW, message, numbers(option))
    return None


def _latency(option: Option, spec: DeploymentSpec) -> Verdict | None:
    performance, slo = option.performance, spec.slo
    if performance is None:
        return None
    for what, predicted, target in (
        ("ttft", performance.ttft_ms, slo.ttft_ms),
        ("itl", performance.itl_ms, slo.itl_ms),
        ("e2e latency", performance.e2e_ms, slo.e2e_latency_ms),
    ):
        if target is not None and predicted > target:
            where = f"at layerBudget {option.layer_budget}{suffix(option.precision)}"
            message = f"best {what} p{slo.percentile} {predicted:.0f} ms > {target} ms {where}"
            return Verdict(False, Reason.LATENCY_TOO_HIGH, message, numbers(option))
    return None


def _tasks(option: Option, slo: Slo) -> Verdict | None:
    """Last: only what is feasible otherwise is asked."""
    target, share = slo.min_task_percent, option.tasks
    if target is None or share is None:
        return None
    if share.why:
        return share.why
    estimate = share.estimate
    if estimate and estimate.low < target:
        message = f"tasks {estimate.mean:.1f} % (at least {estimate.low:.1f}) < {target}"
        return Verdict(False, Reason.TASKS_TOO_LOW, message, numbers(option))
    return None


def _fine(option: Option) -> Verdict:
    return Verdict(True, Reason.WITHIN_TARGET, describe(option), numbers(option))
