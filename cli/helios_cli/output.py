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

WIDTH = 80
"""Columns of a terminal that tables fit."""
_WHOLE = 14
"""Letters of a word that is not broken, and of what is left of a longer one in a line: who copies an address,
or looks for a name, needs all of it."""


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
        import yaml  # what speaks to servers alone is installed without it

        print(yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True), end="")


def columns(
    titles: Sequence[str],
    rows: Sequence[Sequence[object]],
    width: int = WIDTH,
    notes: Sequence[str] = (),
) -> str:
    """Columns as wide as their widest cell, nothing drawn, nothing cut: what is too wide goes on in the next
    line of its column, the widest column first. `notes`: one for each row, below it."""
    cells = [[str(title) for title in titles], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    between = next((gap for gap in (3, 2) if sum(widths) + gap * (len(widths) - 1) <= width), 1)
    words = [max(_longest_word(row[i]) for row in cells) for i in range(len(titles))]
    narrowed = _narrowed(widths, words, width - between * (len(widths) - 1))
    parts: list[str] = []
    for row, note in zip_longest(cells, ["", *notes], fillvalue=""):
        parts += [(" " * between).join(line).rstrip() for line in _lines(row, narrowed)]
        parts += [paragraph(f"  {note}", "  ", width)] if note else []
    return "\n".join(parts)


def paragraph(text: str, indent: str = "", width: int = WIDTH) -> str:
    """A sentence within the width; its further lines are indented."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _narrowed(widths: Sequence[int], words: Sequence[int], space: int) -> list[int]:
    """The widest give way: first those that have a space to break at, then long words."""
    found = list(widths)
    for least in (words, [min(word, _WHOLE) for word in words]):
        while sum(found) > space:
            wide = [i for i, width in enumerate(found) if width > least[i]]
            if not wide:
                break
            found[max(wide, key=lambda i: found[i])] -= 1
    return found


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[list[str]]:
    wrapped = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""]
        for cell, width in zip(row, widths, strict=True)
    ]
    for parts in zip_longest(*wrapped, fillvalue=""):
        yield [f"{part:{width}}" for part, width in zip(parts, widths, strict=True)]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
