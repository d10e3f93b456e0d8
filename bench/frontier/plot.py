"""Draws quality against tokens a second, a panel a domain, and the front through them. Called by `page` and
`__main__` with points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.frontier.front import Point, by_speed
from bench.picture import INK, panels

_COLOURS = (INK, "#3b82c4", "#d9822b", "#2e9e6b", "#c2528b", "#8a6fd1", "#b59a1f")


def draw(points: Sequence[Point], title: str, file: Path) -> None:
    domains = list(points[0].quality)
    precisions = list(dict.fromkeys(point.precision for point in points))
    with panels(file, (5.2 * len(domains), 4.2), len(domains), title) as drawn:
        for domain, axes in zip(domains, drawn, strict=True):
            line = [(point.quality[domain], point.tokens_per_second) for point in by_speed(points, domain)]
            axes.plot(*zip(*line, strict=True), color=INK, linewidth=1, zorder=1)
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
            axes.set_title(domain)
            axes.set_xlabel("quality, percent of full depth as published")
            axes.set_ylabel("tokens/s")
        drawn[0].legend(title="weights / KV", fontsize=8)
