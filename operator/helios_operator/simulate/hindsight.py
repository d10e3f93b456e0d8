"""What one option, served from the first request to the last, would have come to: what the loop is compared
with.

Called by `helios simulate`. No pass decides anything here: the same requests, the same law, a fleet that
stays as it is. It must not choose by what a profile predicts, only by what the traffic made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from helios_contract.limits import Audit, Limits

from helios_operator.api.types import DeploymentSpec, Objective
from helios_operator.decide import weigh
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option, memory_mib
from helios_operator.simulate.ledger import Figures, Ledger
from helios_operator.simulate.queue import Queue
from helios_operator.simulate.replay import Outcome, Replay
from helios_operator.simulate.serving import law_of
from helios_operator.simulate.traffic import Request

Requests = Callable[[], Iterable[Request]]
"""The same ones, as often as asked."""


@dataclass(frozen=True)
class Static:
    """An option and what it came to. met: the quality that is asked, and the latencies at the percentile."""

    option: str
    figures: Figures
    met: bool


@dataclass(frozen=True)
class Hindsight:
    """best: of those that met all that is asked, by the objective; None: none did."""

    statics: tuple[Static, ...]
    best: Static | None
    objective: Objective = Objective.THROUGHPUT

    def regret(self, outcome: Outcome) -> float | None:
        """Per cent by which a run stayed behind the best, below 0 where it did better; None: nothing to
        compare."""
        highest = self.best.figures.value(self.objective) if self.best else None
        own = outcome.figures.value(self.objective)
        return round(100 * (highest - own) / abs(highest), 2) if own is not None and highest else None


def compare(made: Replay, requests: Requests) -> Hindsight:
    """made: the world of the run, when it is over."""
    spec, snapshot = made.spec, made.snapshot()
    found = {o.service: o for o in weigh(snapshot, made.now, made.policy)[1] if o.performance}
    memory, objective = memory_mib(snapshot), spec.slo.optimization_type
    statics = tuple(
        _static(str(option), _limits(option, spec, memory), made, requests) for option in found.values()
    )
    known = [(each.figures.value(objective), each) for each in statics if each.met]
    ranked = sorted(((v, each) for v, each in known if v is not None), key=lambda pair: -pair[0])
    return Hindsight(statics, ranked[0][1] if ranked else None, objective)


def _static(name: str, limits: Limits, made: Replay, requests: Requests) -> Static:
    ledger = Ledger(made.ledger.models, made.spec)
    law = law_of(limits, made.model_of(limits), made)

    def ended(request: Request, first: float, end: float) -> None:
        ledger.end(request, limits, first, end)

    pods = [
        Queue(law, limits.max_queue_size, ended, ledger.refuse) for _ in range(max(1, made.spec.replicas))
    ]
    count = 0
    for count, request in enumerate(requests(), 1):
        pod = pods[count % len(pods)]
        pod.come(request, request.arrived)
        pod.advance(request.arrived)
    for pod in pods:
        pod.advance(float("inf"))
    figures = ledger.figures(count)
    return Static(name, figures, _met(figures, made.spec))


def _met(figures: Figures, spec: DeploymentSpec) -> bool:
    asked = select.minimum_quality(spec.slo)
    allowed = figures.requests * (100 - spec.slo.percentile) / 100
    return figures.quality_percent >= (asked or 0) and figures.slo_violations <= allowed


def _limits(option: Option, spec: DeploymentSpec, memory: int) -> Limits:
    candidate, resolved = option.contender.candidate, option.contender.resolved
    if resolved is None:
        raise ValueError(f"{option} is not resolved")
    return Limits(
        generation=1,
        candidate=candidate.name,
        model_uri=candidate.uri,
        model_revision=resolved.revision,
        exits_uri=candidate.exits or "",
        exits_digest=resolved.exits_digest,
        layer_budget=option.layer_budget,
        weight_dtype=option.precision.weight_dtype,
        kv_cache_dtype=option.precision.kv_cache_dtype,
        max_batch_size=option.max_batch_size,
        memory_mib=memory,
        max_queue_size=spec.limits.max_queue_size,
        audit=Audit(percent=spec.reassessment.audit_percent),
        tokens_per_request=spec.workload.isl + spec.workload.osl,
    )
