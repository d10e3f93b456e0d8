"""Every option of a deployment with its verdict, weighed again from the profiles that are kept, as a report
draws it.

Called by `report`. What pods told the operator (their pace, what they audited) is not kept, so a figure may
differ from the one that it went by, which stands with each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from helios_operator.api.status import Served
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option

from helios_cli import weighing
from helios_cli.options import serves
from helios_cli.views import Object
from helios_cli.weighing import Text


@dataclass(frozen=True)
class WeighedOption:
    """A candidate at a depth in layers, its weights/keys and values in `precision`, with `rows` requests
    together. Quality in percent of full depth, with both bounds; None: not measured. `serves`: it
    does now."""

    candidate: str
    layers: int
    precision: str
    rows: int
    quality_percent: float | None
    quality_low: float | None
    quality_high: float | None
    tokens_per_second: float | None
    latency_ms: float | None
    feasible: bool
    reason: str
    message: str
    serves: bool


@dataclass(frozen=True)
class Weighed:
    """`target`: of quality, in percent; None: none is asked. `notes`: what the options do not heed, or why
    there are none, in sentences."""

    target: int | None = None
    options: list[WeighedOption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def weighed(
    obj: Object, rows: Sequence[Object], models: Sequence[Object], text: Text, now: datetime
) -> Weighed:
    """Best first. An object of another release is left out and named."""
    found = weighing.weighed(obj, rows, models, text, now)
    if found.deployment is None:
        return Weighed(notes=found.notes)
    active = found.deployment.status.active
    options = [_option(option, active) for option in found.options]
    notes = found.notes if options else [*found.notes, "No candidate is measured."]
    return Weighed(select.minimum_quality(found.deployment.spec.slo), options, notes)


def _option(option: Option, active: Served | None) -> WeighedOption:
    quality, performance = option.quality, option.performance
    return WeighedOption(
        candidate=option.contender.name,
        layers=option.layer_budget,
        precision=str(option.precision),
        rows=option.max_batch_size,
        quality_percent=quality.mean if quality else None,
        quality_low=quality.low if quality else None,
        quality_high=quality.high if quality else None,
        tokens_per_second=performance.expected.tokens_per_second if performance else None,
        latency_ms=performance.latency_ms if performance else None,
        feasible=option.verdict.ok,
        reason=str(option.verdict.reason),
        message=option.verdict.message,
        serves=serves(option, active),
    )
