"""Draws one shape of a result as SVG: tokens a second by batch, a bar an engine. Called by `page.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.picture import INK, panels

_OURS, _THEIRS = "#d9822b", INK


def draw(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[list[float] | None]], file: Path
) -> None:
    """groups: labels of the batches; series: by engine [median, least, greatest] of each group, or None."""
    names, size = list(series), (2.3 * len(groups) + 1.2, 3.4)
    with panels(file, size, len(groups), title, font_size=9) as drawn:
        for index, (group, panel) in enumerate(zip(groups, drawn, strict=True)):
            for place, name in enumerate(names):
                if (known := series[name][index]) is not None:
                    value, low, high = known
                    colour = _OURS if name.startswith("HELIOS") else _THEIRS
                    spread = [[value - low], [high - value]]
                    panel.barh(place, value, xerr=spread, color=colour, ecolor="#3b82c4")
            panel.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
            panel.invert_yaxis()
            panel.set_title(group)
        drawn[0].figure.supxlabel("new tokens a second")
