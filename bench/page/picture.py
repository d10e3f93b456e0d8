"""Draws the worst figure of each bound over what is asked: right of the line it is reached. Called by
`__main__` with what the bounds come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.page.bounds import Held, Verdict
from bench.picture import INK, panels

_LOOKS = {
    Verdict.REACHED: ("#2e9e6b", "o"),
    Verdict.WITHIN: ("#d9822b", "s"),
    Verdict.MISSED: ("#d1495b", "X"),
}


def draw(found: Sequence[Held], file: Path) -> None:
    """Bounds of 0 have no ratio and are left to the table."""
    shown = [one for one in found if one.bound.least or one.bound.most]
    with panels(file, (9.6, 0.34 * len(shown) + 1.2)) as [axes]:
        for place, one in enumerate(shown):
            colour, marker = _LOOKS[one.verdict]
            value, *ends = (_ratio(one, end) for end in ("value", "low", "high"))
            axes.plot([min(ends), max(ends)], [place, place], color=colour, linewidth=2)
            axes.plot(value, place, marker, color=colour, markersize=6)
        for verdict, (colour, marker) in _LOOKS.items():
            axes.plot([], [], marker, color=colour, label=str(verdict))
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(shown)), [f"{one.bound.asked}, {one.bound.words}" for one in shown])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xticks([0.5, 0.7, 1, 1.5, 2, 3, 5], ["0.5", "0.7", "1", "1.5", "2", "3", "5"])
        axes.minorticks_off()
        axes.set_xlabel("worst figure over what is asked, right of 1 is better; cut at 0.3 and at 6")
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.08))


def _ratio(one: Held, end: str) -> float:
    """Above 1 where the bound is held, whichever side it is of."""
    value = max(float(one.worst[end]), 1e-9)
    ratio = value / one.bound.least if one.bound.least else (one.bound.most or 0) / value
    return min(max(ratio, 0.3), 6)
