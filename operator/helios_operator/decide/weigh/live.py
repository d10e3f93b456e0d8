"""Does what serves meet the SLO, as its pods tell since the last change?

Called by `status` for the condition, and by `analysing` for each look at a change. It must not choose.
"""

from __future__ import annotations

from dataclasses import replace

from helios_operator.api.reasons import Reason
from helios_operator.api.timestamps import format_time
from helios_operator.decide.facts import percentiles
from helios_operator.decide.facts.quality import Estimate, tenth, whole
from helios_operator.decide.plan import SeenQuality, Verdict
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.case import Case

MISSED = (Reason.LATENCY_MISSED, Reason.QUALITY_MISSED, Reason.TASKS_MISSED)


def slo_met(case: Case) -> Verdict:
    """From what clients saw since the last change, and from the audits of the depth in use."""
    if blind := case.memory.blind_since:
        when = format_time(blind.replace(microsecond=0))
        said = f"no data since {when}: no serving pod reports telemetry"
        return Verdict(False, Reason.INSUFFICIENT_DATA, said)
    since, cold = case.fleet.requests_since_change, case.policy.cold_requests
    if since < cold:
        said = f"{since} of {cold} requests since the last change"
        return Verdict(False, Reason.INSUFFICIENT_DATA, said)
    latency, quality, tasks = _latency(case), _quality(case), _tasks(case)
    said = ", ".join(verdict.message for verdict in (latency, quality, tasks) if verdict.message)
    for missed in (latency, quality, tasks):
        if missed.reason in MISSED:
            return replace(missed, message=said)
    for verdict in (tasks, quality, latency):
        if verdict.reason != Reason.NO_TARGET:
            return replace(verdict, message=said)
    return Verdict(False, Reason.NO_TARGET, said)


def _latency(case: Case) -> Verdict:
    """In the words of the buckets: nobody knows more of a percentile than which one it is in."""
    slo, telemetry = case.spec.slo, case.fleet.telemetry
    ttft, e2e = percentiles.in_order(
        percentiles.of([t.ttft_ms for t in telemetry], slo.percentile),
        percentiles.of([t.e2e_ms for t in telemetry], slo.percentile),
    )
    seen = (
        ("ttft", slo.ttft_ms, ttft),
        ("itl", slo.itl_ms, percentiles.of([t.itl_ms for t in telemetry], slo.percentile)),
        ("e2e", slo.e2e_latency_ms, e2e),
    )
    parts = [f"{name} {found} ms" for name, _, found in seen if found]
    missed = [
        f"{name} {found.is_above(target)} {target} ms"
        for name, target, found in seen
        if target and found and found.value > target
    ]
    message = f"p{slo.percentile} {', '.join(parts)}" if parts else ""
    if missed:
        return Verdict(False, Reason.LATENCY_MISSED, f"{message}: {', '.join(missed)}")
    asked = any(target for _, target, _ in seen)
    return Verdict(asked, Reason.WITHIN_TARGET if asked else Reason.NO_TARGET, message)


def seen_quality(case: Case) -> SeenQuality | None:
    """What is asked of it and what was seen, as numbers."""
    target = select.minimum_quality(case.spec.slo, case.policy)
    if case.contender is None or case.fleet.serving is None or target is None:
        return None
    estimate = _estimate(case) if case.spec.reassessment.audit_percent else None
    if estimate is None:
        return SeenQuality(target)
    return SeenQuality(target, estimate.mean, estimate.low, estimate.high)


def _estimate(case: Case) -> Estimate | None:
    """None: too few audits since the last change."""
    contender, serving, audits = case.contender, case.fleet.serving, case.fleet.audits_since_change()
    if contender is None or serving is None or len(audits) < case.policy.min_audits:
        return None
    return case.live(audits, contender).quality(contender, serving.layer_budget, serving.precision)


def _quality(case: Case) -> Verdict:
    target = select.minimum_quality(case.spec.slo, case.policy)
    nothing_serves = case.contender is None or case.fleet.serving is None
    if nothing_serves or target is None or not case.spec.reassessment.audit_percent:
        return Verdict(False, Reason.NO_TARGET, "")
    estimate = _estimate(case)
    if estimate is None:
        said = f"{len(case.fleet.audits_since_change())} of {case.policy.min_audits} audited requests"
        return Verdict(False, Reason.INSUFFICIENT_DATA, said)
    bounds = f"{tenth(estimate.low)} to {tenth(estimate.high)}"
    audited = f"audited quality {whole(estimate.mean)} % ({bounds})"
    said = f"{audited}, {target} asked, on {estimate.samples} requests"
    if estimate.high < target:
        return Verdict(False, Reason.QUALITY_MISSED, said)
    return Verdict(True, Reason.WITHIN_TARGET, said)


def _tasks(case: Case) -> Verdict:
    """Of what serves, as a Job found it; what the probe heard of its pods is told beside."""
    target, current = case.spec.slo.min_task_percent, case.current_on(case.profiles)
    if target is None or current is None or current.tasks is None:
        return Verdict(False, Reason.NO_TARGET, "")
    share = current.tasks
    if share.estimate is None:
        reason = share.why.reason if share.why else ""
        known = reason if reason == Reason.TOO_FEW_TASKS else Reason.INSUFFICIENT_DATA
        return Verdict(False, known, share.why.message if share.why else "")
    said = f"tasks {share.estimate.mean:.1f} % of {target} asked{_probed(case)}"
    if share.estimate.mean < target:
        return Verdict(False, Reason.TASKS_MISSED, said)
    return Verdict(True, Reason.WITHIN_TARGET, said)


def _probed(case: Case) -> str:
    counts = [told.tasks for told in case.fleet.telemetry if told.tasks]
    if not counts:
        return ""
    asked, passed = sum(each.asked for each in counts), sum(each.passed for each in counts)
    return f", {passed} of {asked} probed"
