"""How much longer steps last here today than profiled, as the pods that serve tell.

Called by `options`, once per pass. It must not know what could be served instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log

from helios_contract.results import StepTimeFit
from helios_contract.serves import Precision
from helios_contract.telemetry import Telemetry
from helios_server.planning.timing import StepPoint, step_ns

from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.policy import DEFAULT, Policy


def pace_of(
    serving: Contender | None, precision: Precision, pods: Sequence[Telemetry], policy: Policy
) -> float:
    """`serving`: whose model the pods serve, in that precision, if it is a candidate."""
    timing = serving.timing_at(precision) if serving else None
    if serving is None or serving.resolved is None or timing is None or timing.fit is None:
        return 1.0
    kind = serving.resolved.head_kind
    steps = [point for pod in pods for point in _points(pod, kind)]
    return measured_pace(timing.fit, steps, policy)


def _points(pod: Telemetry, head_kind: str) -> Iterator[StepPoint]:
    """A pod's steps; those at full depth went through the model's own head."""
    for step in pod.steps:
        yield StepPoint(
            layers=step.layers,
            rows=step.rows,
            kv_tokens=step.kv_tokens,
            sampled=step.sampled,
            head_kind="bare" if step.layers == pod.capacity.total_layers else head_kind,
            step_ns=step.mean_us * 1000,
            weight=step.count,
        )


def measured_pace(fit: StepTimeFit, steps: Sequence[StepPoint], policy: Policy = DEFAULT) -> float:
    """Geometric mean of measured / predicted step times over serving steps, within bounds: more than that is
    a neighbour's noise, or a cold start. One factor for all backbones: it is the machine that is slower
    today."""
    weight = sum(point.weight for point in steps)
    if weight < policy.min_steps:
        return 1.0
    drift = sum(
        point.weight * log(max(1e-3, point.step_ns / max(1.0, _predicted(fit, point)))) for point in steps
    )
    return min(policy.max_pace, max(1 / policy.max_pace, exp(drift / weight)))


def _predicted(fit: StepTimeFit, point: StepPoint) -> float:
    if point.head_kind not in fit.heads:
        return point.step_ns
    return step_ns(
        fit,
        layers=point.layers,
        rows=point.rows,
        kv_tokens=point.kv_tokens,
        sampled=point.sampled,
        head_kind=point.head_kind,
    )
