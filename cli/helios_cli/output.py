"""Printing: one view (a dataclass) as a table, as JSON or as YAML.

The view is the information, made by a verb; a table leaves things out, JSON and YAML do not.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import yaml

WIDTH = 80
"""Columns of a terminal that tables fit."""
_NARROWEST = 4


def show(view: Any, output: str, table: Callable[[Any], None]) -> None:
    """Prints a dataclass, or a list of them."""
    if output == "table":
        table(view)
        return
    content = [asdict(item) for item in view] if isinstance(view, list) else asdict(view)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if output == "json":
        print(text)
    else:  # by way of JSON, so that enums are their plain words in both
        print(yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True), end="")


def columns(titles: Sequence[str], rows: Sequence[Sequence[object]], width: int = WIDTH) -> str:
    """Columns as wide as their widest cell, nothing drawn, nothing cut: what is too wide goes on in the next
    line of its column, the widest column first."""
    cells = [[str(title) for title in titles], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    between = next((gap for gap in (3, 2, 1) if sum(widths) + gap * (len(widths) - 1) <= width), 2)
    narrowed = _narrowed(widths, width - between * (len(widths) - 1))
    lines = (line for row in cells for line in _lines(row, narrowed))
    return "\n".join((" " * between).join(line).rstrip() for line in lines)


def paragraph(text: str, indent: str = "", width: int = WIDTH) -> str:
    """A sentence within the width; its further lines are indented."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _narrowed(widths: Sequence[int], space: int) -> list[int]:
    """The widest give way, as far as there is something to give."""
    found = list(widths)
    while sum(found) > space and max(found) > _NARROWEST:
        found[found.index(max(found))] -= 1
    return found


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[list[str]]:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        yield [f"{part:{width}}" for part, width in zip(parts, widths, strict=True)]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
