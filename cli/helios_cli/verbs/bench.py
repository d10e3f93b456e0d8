"""`helios bench NAME`: runs one of the checkout's benches. A wheel does not carry them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from helios_operator.errors import OperatorError

from helios_cli.arguments import Parser

_ROOT = Path(__file__).resolve().parents[3]
"""Of the checkout; what stands there of an installed package is not ours."""


def run(argv: Sequence[str]) -> int:
    names = _names()
    parser = Parser("bench", "Run one of the benchmarks of a checkout; further arguments are passed on.")
    parser.add_argument("name", metavar="NAME", choices=names, help=f"one of {', '.join(names)}")
    name = parser.parse_args(argv[:1]).name
    sys.path.insert(0, str(_ROOT))  # where `python -m bench.NAME` finds it
    sys.argv = [name, *argv[1:]]
    runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)
    return 0


def _names() -> list[str]:
    folder = _ROOT / "bench"
    if not (folder / "report.py").is_file():
        problem = "the benchmarks are not part of an installed package"
        raise OperatorError(
            "bench", problem, "run `helios bench`, or `python -m bench.NAME`, from a checkout"
        )
    scripts = {path.stem for path in folder.glob("*.py") if "\nif __name__ ==" in path.read_text()}
    return sorted(scripts | {path.parent.name for path in folder.glob("*/__main__.py")})
