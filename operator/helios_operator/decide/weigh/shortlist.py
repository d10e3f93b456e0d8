"""Which candidates are worth measuring: the best few by what is known before measuring them.

Called by `decide` right after `candidates`. Published figures rank, measured ones correct them. A small list
written inline is not shortlisted; a catalogue always is. It must not look at live traffic: the shortlist
follows the SLO, the hardware and the candidates, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Objective
from helios_operator.decide.facts.candidates import Contender, Key, legal_depths
from helios_operator.decide.facts.precisions import share_of_weights
from helios_operator.decide.plan import Verdict
from helios_operator.decide.weigh.options import Bench


def shortlist(bench: Bench, serving: Key | None) -> tuple[Contender, ...]:
    """All contenders; those that are not considered carry the reason. What serves keeps its place: it is
    measured already, and only a selection takes it away."""
    bench = replace(bench, contenders=tuple(_within_budget(c, bench) for c in bench.contenders))
    spec = bench.spec
    if spec.candidate_selector is None and len(bench.contenders) <= bench.policy.shortlist_places:
        return bench.contenders
    selector = spec.candidate_selector
    places = selector.max_candidates if selector else bench.policy.shortlist_places
    merits = Merits(bench)
    unfit = {c.key: reason for c in bench.contenders if c.competes and (reason := _unfit(c, bench))}
    ranked = sorted(
        (c for c in bench.contenders if c.competes and c.key not in unfit),
        key=lambda c: (c.key != serving, -merits.of(c), c.key),
    )
    chosen = ranked[:places]
    return tuple(
        c
        if not c.competes or c in chosen
        else replace(c, turned_away=unfit.get(c.key) or merits.outranked(c, chosen))
        for c in bench.contenders
    )


def _within_budget(contender: Contender, bench: Bench) -> Contender:
    bounds = contender.candidate.layer_budget or bench.spec.limits.layer_budget
    if not contender.measurable or legal_depths(contender, bench.spec.limits.layer_budget):
        return contender
    span = f"{bounds.min or 1} to {bounds.max or contender.measurable.num_layers}"
    message = f"none of its depths is within the layer budget ({span} layers)"
    return replace(contender, turned_away=Verdict(False, Reason.OUT_OF_BUDGET, message))


@dataclass(frozen=True)
class Merits:
    """The objective as far as it is known before measuring; larger is better. Where a candidate was measured,
    that counts; and what the measured ones make of their published figures here scales the others' (another
    accelerator, another workload), so that one wrong claim is corrected and a systematic difference is not
    held against anyone."""

    bench: Bench

    def of(self, contender: Contender) -> float:
        published = contender.published
        if self.bench.spec.slo.optimization_type is Objective.QUALITY:
            return float(published.quality_percent) if published.quality_percent is not None else -inf
        measured = self._measured(contender)
        if measured is not None:
            return measured
        if published.tokens_per_second is not None:
            return published.tokens_per_second * self._scale()
        return -float(published.parameters_millions) if published.parameters_millions is not None else -inf

    def outranked(self, contender: Contender, chosen: Sequence[Contender]) -> Verdict:
        mine, least = self.of(contender), min((self.of(c) for c in chosen), default=inf)
        unit = "% quality" if self.bench.spec.slo.optimization_type is Objective.QUALITY else "tok/s"
        if mine == -inf:
            message = "no published figures to rank it by"
        elif mine < 0:
            message = f"{-mine:.0f} M parameters and no published speed; others are smaller or publish theirs"
        else:
            message = f"{mine:.0f} {unit}; the last on the shortlist has {least:.0f}"
        return Verdict(False, Reason.NOT_SHORTLISTED, message, {"merit": mine, "lastShortlisted": least})

    def _measured(self, contender: Contender) -> float | None:
        """Tokens per second of its fastest depth; for latency and energy too, whose order it shares."""
        options = (
            self.bench.option(contender, k, precision, None)
            for k in legal_depths(contender, self.bench.spec.limits.layer_budget)
            for precision in contender.precisions
        )
        return max((o.performance.tokens_per_second for o in options if o.performance), default=None)

    def _scale(self) -> float:
        """Median of measured / published; one measurement alone may be the wrong claim, so it takes two."""
        ratios = [
            measured / c.published.tokens_per_second
            for c in self.bench.contenders
            if c.published.tokens_per_second and (measured := self._measured(c)) is not None
        ]
        return median(ratios) if len(ratios) >= self.bench.policy.min_corrections else 1.0


def _unfit(contender: Contender, bench: Bench) -> Verdict | None:
    """What rules it out before any measurement, with the numbers."""
    return _too_big(contender, bench) or _too_poor(contender, bench)


def _too_big(contender: Contender, bench: Bench) -> Verdict | None:
    needed = _needed_mib(contender, bench)
    if needed <= bench.memory_mib or not bench.memory_mib:
        return None
    message = f"needs {needed} MiB at its shallowest allowed depth, {bench.memory_mib} MiB given"
    return Verdict(
        False, Reason.NOT_ENOUGH_MEMORY, message, {"neededMiB": needed, "givenMiB": bench.memory_mib}
    )


def _needed_mib(contender: Contender, bench: Bench) -> int:
    bounds = bench.spec.limits.layer_budget
    depths = legal_depths(contender, bounds)
    if contender.timing and depths:
        return bench.least_mib(contender, depths[0])
    published, exits = contender.published, contender.candidate.exit_layers
    if published.memory_mib is None:
        return 0
    claimed = published.memory_mib * min(map(share_of_weights, contender.precisions), default=1.0)
    if not published.num_layers or not exits:
        return round(claimed)
    lowest = (contender.candidate.layer_budget or bounds).min or 1
    shallowest = min((k for k in exits if k >= lowest), default=published.num_layers)
    return round(claimed * min(shallowest, published.num_layers) / published.num_layers)


def _too_poor(contender: Contender, bench: Bench) -> Verdict | None:
    asked, claimed = bench.spec.slo.min_quality_percent, contender.published.quality_percent
    if asked is None or claimed is None or claimed >= asked:
        return None
    message = f"published quality {claimed} % is below minQualityPercent {asked}"
    return Verdict(
        False, Reason.QUALITY_TOO_LOW, message, {"publishedPercent": claimed, "askedPercent": asked}
    )
