"""Draws percentiles of latency, a panel a kind and a group of bars a load.

Called by `__main__` with the claims. One file serves light and dark pages: nothing is behind the drawing, and
its lines and letters are of middle tones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.report import Claim
from bench.serve.figures import PERCENTS

_INK = "#7d8590"
_COLOURS = ("#3b82c4", "#d9822b", "#c2528b")
_KINDS = {"ttft": "first token, ms", "itl": "between messages, ms", "e2e": "whole answer, ms"}


def draw(names: Sequence[str], claims: Sequence[Claim], title: str, file: Path) -> None:
    """names: of the loads, as claims begin. Needs matplotlib (extra `plot`)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    known: Mapping[str, Claim] = {each.id: each for each in claims}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "helios", "text.color": _INK}):
        figure, panels = pyplot.subplots(1, len(_KINDS), figsize=(4.2 * len(_KINDS), 3.6))
        for (kind, label), axes in zip(_KINDS.items(), panels, strict=True):
            for place, (percent, colour) in enumerate(zip(PERCENTS, _COLOURS, strict=True)):
                found = [known[f"{name}-{kind}-p{percent}"] for name in names]
                values = [each.value for each in found]
                spread = [
                    [each.value - each.low for each in found],
                    [each.high - each.value for each in found],
                ]
                places = [index + (place - 1) * 0.27 for index in range(len(names))]
                axes.bar(places, values, 0.25, yerr=spread, color=colour, ecolor=_INK, label=f"p{percent}")
            axes.set_xticks(range(len(names)), names)
            axes.set_ylabel(label, color=_INK)
            axes.tick_params(colors=_INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_INK)
        panels[0].legend(frameon=False, labelcolor=_INK, fontsize=8)
        figure.suptitle(title, color=_INK)
        figure.tight_layout()
        figure.savefig(file, transparent=True, metadata={"Date": None} if file.suffix == ".svg" else None)
        pyplot.close(figure)
