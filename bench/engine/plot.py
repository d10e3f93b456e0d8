"""Draws one shape of a result as SVG: tokens a second by batch, a bar an engine.

Run by `page.py` in an environment that has matplotlib, with {"title", "unit", "groups", "series"} on its
input; it writes to the file that its argument names. It may import nothing of ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "helios", "font.size": 9}
    draw(json.load(sys.stdin), sys.argv[1])


def draw(told: dict[str, Any], file: str) -> None:
    """groups: labels of the batches; series: by engine [median, least, greatest] of each group, or None."""
    from matplotlib import pyplot

    groups, series = told["groups"], told["series"]
    figure, panels = pyplot.subplots(1, len(groups), figsize=(2.3 * len(groups) + 1.2, 3.4))
    names = list(series)
    for index, (group, panel) in enumerate(
        zip(groups, [panels] if len(groups) == 1 else panels, strict=True)
    ):
        for place, name in enumerate(names):
            if (known := series[name][index]) is not None:
                value, low, high = known
                color = "#b5442c" if name.startswith("HELIOS") else "#7f8c99"
                panel.barh(place, value, xerr=[[value - low], [high - value]], color=color, ecolor="#333333")
        panel.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
        panel.invert_yaxis()
        panel.set_title(group)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(told["title"])
    figure.supxlabel(told["unit"])
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
