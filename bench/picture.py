"""How the pictures of results are drawn. One file serves light and dark pages: nothing is behind the drawing,
and its lines and letters are of middle tones.

Used by the benches that draw. It knows nothing of results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INK = "#7d8590"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "helios",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}


@contextmanager
def panels(
    file: Path, size: tuple[float, float], columns: int = 1, title: str = "", font_size: float = 10
) -> Iterator[list[Any]]:
    """matplotlib's axes, side by side; what stands in them at the end is written. size: in inches. Needs
    matplotlib (extra `plot`)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(_STYLE | {"font.size": font_size}):
        figure, found = pyplot.subplots(1, columns, figsize=size, squeeze=False)
        if title:
            figure.suptitle(title)
        try:
            yield list(found[0])
            figure.tight_layout()
            # The same figures give the same file, whenever they are drawn.
            figure.savefig(file, transparent=True, metadata={"Date": None} if file.suffix == ".svg" else None)
        finally:
            pyplot.close(figure)
