"""Draws throughput, p99 response and time to the first token against the offered load, a line a combination.
Called by `page` and `__main__` with points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.joint.curve import Point, words
from bench.picture import INK, panels

_COLOURS = ("#3b82c4", "#d9822b", "#2e9e6b", "#c2528b", "#8a6fd1", "#b59a1f")
"""Of precisions; depths have lines and marks of their own."""
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_PANELS = (
    ("tokens/s", "tokens_per_second", False),
    ("p99 response, ms", "response_p99_ms", True),
    ("p99 to the first token, ms", "ttft_p99_ms", True),
)


def draw(points: Sequence[Point], title: str, file: Path) -> None:
    keys = list(dict.fromkeys(point.key for point in points))
    depths = sorted({layers for layers, _ in keys}, reverse=True)
    precisions = list(dict.fromkeys(precision for _, precision in keys))
    with panels(file, (4.2 * len(_PANELS) + 3.4, 3.8), len(_PANELS) + 1, title) as [*drawn, beside]:
        for (label, field, logarithmic), axes in zip(_PANELS, drawn, strict=True):
            for key in keys:
                own = sorted((point for point in points if point.key == key), key=lambda point: point.load)
                line, mark = _LINES[depths.index(key[0]) % len(_LINES)]
                axes.plot(
                    [point.offered for point in own],
                    [getattr(point, field) for point in own],
                    linestyle=line,
                    marker=mark,
                    markersize=4,
                    color=_COLOURS[precisions.index(key[1]) % len(_COLOURS)],
                    label=f"{words(key)}, {_quality(own[0])}",
                )
            at_one = [point.offered for point in points if point.load == 1]
            for offered in at_one[:1]:
                axes.axvline(offered, color=INK, linewidth=0.8, linestyle=":")
            axes.set_xlabel("requests/s offered")
            axes.set_ylabel(label)
            if logarithmic:
                axes.set_yscale("log")
        beside.axis("off")
        beside.legend(*drawn[0].get_legend_handles_labels(), fontsize=8, loc="center", title="quality")


def _quality(point: Point) -> str:
    """ "94 % prose, 90 % code"."""
    return ", ".join(f"{share:.1f} % {domain}" for domain, share in point.quality.items())
