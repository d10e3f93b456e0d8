"""Draws quality against tokens a second, a panel a domain, and the front through them.

Called by `__main__.py` with points. One file serves light and dark pages: nothing is behind the drawing, and
its lines and letters are of middle tones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.frontier.front import Point, by_speed

_INK = "#7d8590"
_COLOURS = ("#7d8590", "#3b82c4", "#d9822b", "#2e9e6b", "#c2528b", "#8a6fd1", "#b59a1f")


def draw(points: Sequence[Point], title: str, file: Path) -> None:
    """Needs matplotlib (extra `plot`)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    domains = list(points[0].quality)
    precisions = list(dict.fromkeys(point.precision for point in points))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "helios", "text.color": _INK}):
        figure, panels = pyplot.subplots(1, len(domains), figsize=(5.2 * len(domains), 4.2), squeeze=False)
        for domain, axes in zip(domains, panels[0], strict=True):
            line = [(point.quality[domain], point.tokens_per_second) for point in by_speed(points, domain)]
            axes.plot(*zip(*line, strict=True), color=_INK, linewidth=1, zorder=1)
            for precision, colour in zip(precisions, _COLOURS, strict=False):
                own = [point for point in points if point.precision == precision]
                qualities = [point.quality[domain] for point in own]
                rates = [point.tokens_per_second for point in own]
                axes.scatter(qualities, rates, color=colour, label=str(precision), zorder=2)
                for point, quality, rate in zip(own, qualities, rates, strict=True):
                    axes.annotate(
                        str(point.layers),
                        (quality, rate),
                        xytext=(4, 4),
                        textcoords="offset points",
                        fontsize=7,
                    )
            axes.set_title(domain, color=_INK)
            axes.set_xlabel("quality, percent of full depth as published", color=_INK)
            axes.set_ylabel("tokens/s", color=_INK)
            axes.tick_params(colors=_INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_INK)
        panels[0][0].legend(title="weights / KV", frameon=False, labelcolor=_INK, fontsize=8)
        figure.suptitle(title, color=_INK)
        figure.tight_layout()
        figure.savefig(file, transparent=True, metadata={"Date": None} if file.suffix == ".svg" else None)
        pyplot.close(figure)
