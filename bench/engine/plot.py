"""Draws one shape of a result as SVG: tokens a second by batch, a bar an engine.

Called by `page.py`. One file serves light and dark pages: nothing is behind the drawing, and its lines and
letters are of middle tones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_INK = "#7d8590"
_OURS, _THEIRS = "#d9822b", "#7d8590"


def draw(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[list[float] | None]], file: Path
) -> None:
    """groups: labels of the batches; series: by engine [median, least, greatest] of each group, or None."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style = {"svg.fonttype": "none", "svg.hashsalt": "helios", "font.size": 9, "text.color": _INK}
    with matplotlib.rc_context(style):
        figure, panels = pyplot.subplots(
            1, len(groups), figsize=(2.3 * len(groups) + 1.2, 3.4), squeeze=False
        )
        names = list(series)
        for index, (group, panel) in enumerate(zip(groups, panels[0], strict=True)):
            for place, name in enumerate(names):
                if (known := series[name][index]) is not None:
                    value, low, high = known
                    colour = _OURS if name.startswith("HELIOS") else _THEIRS
                    spread = [[value - low], [high - value]]
                    panel.barh(place, value, xerr=spread, color=colour, ecolor="#3b82c4")
            panel.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
            panel.invert_yaxis()
            panel.set_title(group, color=_INK)
            panel.tick_params(colors=_INK)
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_color(_INK)
        figure.suptitle(title, color=_INK)
        figure.supxlabel("new tokens a second", color=_INK)
        figure.tight_layout()
        figure.savefig(file, transparent=True, metadata={"Date": None})
        pyplot.close(figure)
