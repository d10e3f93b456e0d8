"""What became of each request, and the figures of a run.

Filled by pods and static fleets as requests end, read by `replay` and `hindsight`. It must not know how
anything was decided.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from helios_contract.limits import Limits
from helios_contract.serves import Precision

from helios_operator.api.types import DeploymentSpec, Objective
from helios_operator.decide.weigh import select
from helios_operator.simulate.traffic import Request
from helios_operator.simulate.truth import Model, Text

_MINUTE = 60.0
_PERCENTILES = (50, 95, 99)
Service = tuple[str, int, Precision]
"""Candidate, layers, precision."""


@dataclass(frozen=True)
class Figures:
    """Of one run. Percentiles by their names, in milliseconds; between tokens: each request's mean.

    slo_violations: requests that missed a latency or were not answered; quality_violations: those answered
    in a minute whose quality was below what is asked; quality_percent: bits of the best full depth / bits of
    what served."""

    requests: int
    answered: int
    refused: int
    unanswered: int
    seconds: float
    tokens_per_second: float
    ttft_ms: dict[str, float]
    itl_ms: dict[str, float]
    e2e_ms: dict[str, float]
    mean_e2e_ms: float
    quality_percent: float
    joules_per_megatoken: float | None
    slo_violations: int
    quality_violations: int

    def value(self, objective: Objective) -> float | None:
        """Greater is better. None: not known."""
        match objective:
            case Objective.THROUGHPUT:
                return self.tokens_per_second
            case Objective.LATENCY:
                return -self.mean_e2e_ms
            case Objective.ENERGY:
                return None if self.joules_per_megatoken is None else -self.joules_per_megatoken
            case Objective.QUALITY:
                return self.quality_percent


@dataclass
class Minute:
    """Sums of bits: of the best full depth, and of what served."""

    best: float = 0.0
    own: float = 0.0
    requests: int = 0


@dataclass
class Ledger:
    """models: of all candidates, by name."""

    models: dict[str, Model]
    spec: DeploymentSpec
    refused: int = 0
    arrived: array[float] = field(default_factory=lambda: array("d"))
    first: array[float] = field(default_factory=lambda: array("d"))
    ended: array[float] = field(default_factory=lambda: array("d"))
    tokens: array[int] = field(default_factory=lambda: array("q"))
    minutes: dict[int, Minute] = field(default_factory=dict)
    tokens_by: dict[Service, int] = field(default_factory=dict)
    _bits: dict[tuple[int, Service], tuple[int, int]] = field(default_factory=dict)

    def refuse(self, request: Request) -> None:
        self.refused += 1

    def end(self, request: Request, limits: Limits, first: float, end: float) -> None:
        self.arrived.append(request.arrived)
        self.first.append(first)
        self.ended.append(end)
        self.tokens.append(request.output_tokens)
        service = (limits.candidate, limits.layer_budget, limits.precision)
        self.tokens_by[service] = self.tokens_by.get(service, 0) + request.output_tokens
        best, own = self.bits(request.text, service)
        minute = self.minutes.setdefault(int(end / _MINUTE), Minute())
        minute.best += best
        minute.own += own
        minute.requests += 1

    def bits(self, text: Text, service: Service) -> tuple[int, int]:
        """Of the best full depth as published, and of a service. Texts outlive the ledger, so that their
        identity is a key."""
        known = self._bits.get((id(text), service))
        if known is None:
            name, layers, precision = service
            model = self.models[name]
            own = text.millibits(model, layers or model.backbone.layers, precision)
            best = min(text.millibits(each, each.backbone.layers) for each in self.models.values())
            known = self._bits[id(text), service] = (best, own)
        return known

    def figures(self, requests: int) -> Figures:
        """requests: that came."""
        ttft = [(f - a) * 1000 for a, f in zip(self.arrived, self.first, strict=True)]
        e2e = [(e - a) * 1000 for a, e in zip(self.arrived, self.ended, strict=True)]
        itl = [
            (e - f) * 1000 / max(1, n - 1)
            for f, e, n in zip(self.first, self.ended, self.tokens, strict=True)
        ]
        answered, seconds = len(e2e), max(self.ended, default=0.0)
        best = sum(minute.best for minute in self.minutes.values())
        own = sum(minute.own for minute in self.minutes.values())
        return Figures(
            requests=requests,
            answered=answered,
            refused=self.refused,
            unanswered=requests - answered - self.refused,
            seconds=round(seconds, 3),
            tokens_per_second=round(sum(self.tokens) / seconds, 2) if seconds else 0.0,
            ttft_ms=_percentiles(ttft),
            itl_ms=_percentiles(itl),
            e2e_ms=_percentiles(e2e),
            mean_e2e_ms=round(sum(e2e) / answered, 2) if answered else 0.0,
            quality_percent=round(100 * best / own, 3) if own else 0.0,
            joules_per_megatoken=self._joules(),
            slo_violations=requests - answered + self._late(ttft, itl, e2e),
            quality_violations=self._below(),
        )

    def _late(self, *seen: Sequence[float]) -> int:
        slo = self.spec.slo
        targets = [target or math.inf for target in (slo.ttft_ms, slo.itl_ms, slo.e2e_latency_ms)]
        return sum(any(v > t for v, t in zip(each, targets, strict=True)) for each in zip(*seen, strict=True))

    def _below(self) -> int:
        target = select.minimum_quality(self.spec.slo)
        missed = (m for m in self.minutes.values() if target and 100 * m.best / m.own < target)
        return sum(minute.requests for minute in missed)

    def _joules(self) -> float | None:
        """By the profile, at the nearest depth and the most rows that were measured. None: not measured."""
        total = 0.0
        for (name, layers, precision), tokens in self.tokens_by.items():
            timing = self.models[name].backbone.timing(precision)
            if timing is None or timing.energy is None or not timing.energy.points:
                return None
            depth = layers or self.models[name].backbone.layers
            point = min(timing.energy.points, key=lambda p: (abs(p.layer_budget - depth), -p.rows))
            total += tokens * point.joules_per_megatoken
        tokens = sum(self.tokens_by.values())
        return round(total / tokens, 1) if tokens else None


def _percentiles(values: list[float]) -> dict[str, float]:
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)], 2)
        for share in _PERCENTILES
        if ordered
    }
