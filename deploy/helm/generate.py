"""Writes what the chart copies and what its documentation repeats: CRDs, dashboard, the comments in
values.yaml, and the table of values.

Run by `make chart`; a test runs `--check`, which writes nothing and fails when a file is not what it would
write. The CRDs' source is crds/; the dashboard's, panels.py; of the values, values.yaml (defaults) and
values.schema.json (meaning).
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashboard
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/helios"
VALUES = CHART / "values.yaml"
PAGE = ROOT / "docs/install.md"
_BEGIN, _END = "<!-- values: begin (make chart) -->\n", "<!-- values: end -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    stale = {
        path: text for path, text in generated().items() if not path.exists() or path.read_text() != text
    }
    for path, text in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)}: is not what `make chart` writes", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


def generated() -> dict[Path, str]:
    """Every generated file with its text."""
    copies = {CHART / "files/crds" / source.name: source.read_text() for source in ROOT.glob("crds/*.yaml")}
    return {
        **copies,
        CHART / "files/dashboards/helios.json": dashboard.text(),
        VALUES: commented_values(),
        PAGE: _page(),
    }


def commented_values() -> str:
    """values.yaml, what each value means above it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    meaning = {name: text for name, _, text in _rows(schema, yaml.safe_load(VALUES.read_text()), "")}
    lines: list[str] = []
    above: list[str] = []
    for line in VALUES.read_text().splitlines():
        key = line.lstrip().partition(":")[0]
        indent = " " * (len(line) - len(line.lstrip()))
        if lines and key.startswith("#"):
            continue  # written anew
        if key and not key.startswith("#"):
            above = [*above[: len(indent) // 2], key]
            if text := meaning.get(".".join(above)):
                mark = f"{indent}# "
                lines += textwrap.wrap(text, 100, initial_indent=mark, subsequent_indent=mark)
        lines.append(line)
    return "\n".join(lines) + "\n"


def values_table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [
        f"| `{name}` | `{_shown(default)}` | {text} |" for name, default, text in _rows(schema, defaults, "")
    ]
    return "\n".join(["| value | default | |", "| --- | --- | --- |", *rows]) + "\n"


def _page() -> str:
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + values_table() + _END + after


def _rows(schema: dict[str, Any], defaults: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """A row for everything that has a description; a group without one is its members."""
    for name, field in schema.get("properties", {}).items():
        default = (defaults or {}).get(name)
        if "description" in field:
            yield prefix + name, default, field["description"]
        else:
            yield from _rows(field, default, f"{prefix}{name}.")


def _shown(default: Any) -> str:
    return json.dumps(default, separators=(", ", ": "))


if __name__ == "__main__":
    sys.exit(main())
