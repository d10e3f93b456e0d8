"""Which backbones are worth measuring, and in which order.

Called by `profiling`. A backbone that cannot win whatever its quality turns out to be is not measured. It
must not reject one that could be the reference: without it, everybody's quality percent would be flattered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import inf

from helios_operator.decide.facts.candidates import Contender, legal_depths
from helios_operator.decide.facts.evidence import ProfileEvidence
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Bench, Option


def cheapest_first(families: Mapping[str, tuple[Contender, ...]]) -> list[tuple[Contender, ...]]:
    """By the time of one full-depth step where it is known, else by depth."""
    return sorted(families.values(), key=lambda family: (_cost(family[0]), family[0].key))


def is_dominated(family: tuple[Contender, ...], bench: Bench, prompts_digest: str, now: datetime) -> bool:
    """Even with perfect quality its best option is behind one that is already measured and feasible, and it
    is not needed as the reference."""
    measured = tuple(c for c in bench.contenders if c.competes and c.quality_on(prompts_digest))
    if not measured or any(c in measured for c in family):
        return False
    if not _cannot_be_reference(family, measured, bench):
        return False
    evidence = ProfileEvidence(prompts_digest, measured, now, bench.policy)
    options = [option for option in bench.options(evidence) if option.contender in measured]
    best = next((o for o in select.ranked(options, bench.spec, bench.policy) if o.verdict.ok), None)
    if best is None:
        return False
    objective = bench.spec.slo.optimization_type
    reachable = [select.value(option, objective) for option in _fitting(family, bench)]
    return max(reachable, default=-inf) < select.value(best, objective)


def _cannot_be_reference(family: Iterable[Contender], measured: Iterable[Contender], bench: Bench) -> bool:
    """No quality is asked for, or its author claims less than the author of one that is measured."""
    if select.minimum_quality(bench.spec.slo, bench.policy) is None:
        return True
    claims = [c.published.quality_percent for c in family]
    known = [c.published.quality_percent for c in measured if c.published.quality_percent is not None]
    return bool(known) and all(claim is not None and claim <= max(known) for claim in claims)


def _fitting(family: Iterable[Contender], bench: Bench) -> list[Option]:
    options = [
        bench.option(c, k, precision, None)
        for c in family
        for k in legal_depths(c, bench.spec.limits.layer_budget)
        for precision in c.precisions
    ]
    return [option for option in options if option.performance]


def _cost(contender: Contender) -> float:
    resolved, timing = contender.resolved, contender.timing
    layers = resolved.num_layers if resolved else 0
    return (
        layers * timing.fit.per_layer_ns
        if timing and timing.fit
        else inf
        if resolved is None
        else layers * 1e12
    )
