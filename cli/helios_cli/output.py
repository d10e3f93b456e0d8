"""Printing: one view (a dataclass) as a table, as JSON or as YAML.

The view is the information, made by a verb; a table leaves things out, JSON and YAML do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any


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


def columns(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as kubectl prints them: as wide as their widest cell, nothing drawn, nothing cut."""
    cells = [[str(title) for title in titles], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    return "\n".join(
        "   ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
