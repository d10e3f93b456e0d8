"""`helios capacity --plot FILE`: tokens that fit by depth, a line a precision.

Called by the verb, with its view. One file serves light and dark pages: nothing is behind the drawing, and
its lines and letters are of middle tones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from helios_operator.errors import OperatorError

if TYPE_CHECKING:
    from helios_cli.verbs.capacity import CapacityView

_INK = "#7d8590"
_COLOURS = ("#7d8590", "#3b82c4", "#d9822b", "#2e9e6b", "#c2528b", "#8a6fd1", "#b59a1f")


def draw(view: CapacityView, file: Path) -> None:
    """Writes the picture in the format of the file's name. Raises OperatorError: no matplotlib, no such
    format, or a place that cannot be written."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        fix = "install it: pip install 'helios-serve[plot]'"
        raise OperatorError("plot", "matplotlib is not installed", fix) from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "helios", "text.color": _INK}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
        by_precision: dict[str, list[tuple[int, int]]] = {}
        for one in view.combinations:
            name = f"{one.weight_dtype} / {one.kv_cache_dtype}"
            by_precision.setdefault(name, []).append((one.layers, one.tokens))
        for index, (name, points) in enumerate(by_precision.items()):
            layers, tokens = zip(*sorted(points), strict=True)
            axes.plot(layers, tokens, marker="o", color=_COLOURS[index % len(_COLOURS)], label=name)
        axes.set_xlabel("layers", color=_INK)
        axes.set_ylabel("tokens that fit", color=_INK)
        axes.set_title(f"{view.model}, {view.memory_bytes / 2**30:.1f} GiB", color=_INK)
        axes.set_ylim(bottom=0)
        axes.tick_params(colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.legend(title="weights / KV", frameon=False, labelcolor=_INK)
        figure.tight_layout()
        try:
            figure.savefig(file, transparent=True, metadata={"Date": None} if file.suffix == ".svg" else None)
        except (OSError, ValueError) as error:
            fix = "name a file in a writable folder that ends with .svg, .png or .pdf"
            raise OperatorError("plot", f"{file} cannot be written ({error})", fix) from None
        finally:
            pyplot.close(figure)
