"""`helios report NAME`: a deployment's life as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from helios_cli import report, report_page
from helios_cli.arguments import HELIOS, Parser
from helios_cli.places import place


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("report", "A deployment's history as one HTML file.", program).with_place().with_name()
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write it; -: to standard output (default: helios-NAME.html)",
    )
    options = parser.parse_args(argv)
    with place(options) as here:
        told = report.of(here.find(options.name), datetime.now(UTC))
    report_page.write(told, options.output or Path(f"helios-{options.name}.html"))
    return 0
