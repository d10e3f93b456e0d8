"""A report as one HTML file: no foreign host, no script, light and dark.

Called by `helios report` and `helios why --html`. Jinja escapes whatever a name or a message holds,
ElementTree what stands in charts.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from helios_operator.errors import OperatorError

from helios_cli import report_charts
from helios_cli.report import Report, served
from helios_cli.views import PUBLISHED, precision_of, short_age

_STDOUT = Path("-")


def write(report: Report, file: Path) -> None:
    """`-`: to standard output. OperatorError: jinja is not installed, or the place cannot be written."""
    text = page(report).encode("utf-8", "replace").decode()  # a message may hold half a character
    if file == _STDOUT:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fix = "name a file in a writable folder"
        raise OperatorError("output", f"{file} cannot be written ({error.strerror})", fix) from None
    print(file)


def page(report: Report) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError:
        fix = "install it: pip install 'helios-serve[cli]'"
        raise OperatorError("report", "jinja2 is not installed", fix) from None
    environment = Environment(
        loader=PackageLoader("helios_cli", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "time": _time,
        "age": short_age,
        "served": served,
        "percent": _percent,
        "precision": precision_of,
    }
    template = environment.get_template("report.html")
    charts = {name: Markup(svg) for name, svg in _charts(report).items()}
    return template.render(
        report=report,
        status=report.status,
        charts=charts,
        precisions=report_charts.precisions(report),
        colours=report_charts.COLOURS,
        published=PUBLISHED,
    )


def _charts(report: Report) -> dict[str, str]:
    """Those that have something to show."""
    options = report.weighed.options
    charts: dict[str, str] = {}
    if report.spans:
        charts["depth"] = report_charts.depth(report)
    if len(report.counts) > 1:
        charts["requests"] = report_charts.requests(report)
    if any(option.quality_percent is not None for option in options):
        charts["quality"] = report_charts.quality(options, report.weighed.target)
    if report.judged:
        charts["decided"] = report_charts.decided(report)
    return charts


def _time(time: datetime | str | None) -> str:
    """To the second, in UTC; "-" where there is none."""
    if time is None or time == "":
        return "-"
    when = datetime.fromisoformat(time) if isinstance(time, str) else time
    return when.strftime("%Y-%m-%d %H:%M:%S")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
