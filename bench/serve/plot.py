"""Draws percentiles of latency, a panel a kind and a group of bars a load. Called by `__main__` with the
claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.picture import INK, panels
from bench.report import Claim
from bench.serve.figures import PERCENTS

_COLOURS = ("#3b82c4", "#d9822b", "#c2528b")
_KINDS = {"ttft": "first token, ms", "itl": "between messages, ms", "e2e": "whole answer, ms"}


def draw(names: Sequence[str], claims: Sequence[Claim], title: str, file: Path) -> None:
    """names: of the loads, as claims begin."""
    known: Mapping[str, Claim] = {each.id: each for each in claims}
    with panels(file, (4.2 * len(_KINDS), 3.6), len(_KINDS), title) as drawn:
        for (kind, label), axes in zip(_KINDS.items(), drawn, strict=True):
            for place, (percent, colour) in enumerate(zip(PERCENTS, _COLOURS, strict=True)):
                found = [known[f"{name}-{kind}-p{percent}"] for name in names]
                values = [each.value for each in found]
                spread = [
                    [each.value - each.low for each in found],
                    [each.high - each.value for each in found],
                ]
                places = [index + (place - 1) * 0.27 for index in range(len(names))]
                axes.bar(places, values, 0.25, yerr=spread, color=colour, ecolor=INK, label=f"p{percent}")
            axes.set_xticks(range(len(names)), names)
            axes.set_ylabel(label)
        drawn[0].legend(fontsize=8)
