"""The charts of a report as SVG elements: what served over time, requests, and quality with its bounds.

Called by `report_page` with what a `Report` holds. Every chart has a title and a description, and stands
beside a table that holds the same. Colours are classes: the page says what they are in light and dark. It is
ElementTree that makes text of it, and escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from helios_cli.report import Count, Judged, Report, Span
from helios_cli.report_options import WeighedOption

_WIDTH, _HEIGHT = 760, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 28
COLOURS = 6
"""Classes c0 to c5."""
_ROW = 22
_NAMES = 250


@dataclass(frozen=True)
class _Frame:
    """Where times and values are in the picture."""

    begin: datetime
    end: datetime
    low: float
    high: float

    def x(self, time: datetime) -> float:
        share = (time - self.begin) / max(self.end - self.begin, timedelta(microseconds=1))
        return round(_LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def precisions(report: Report) -> list[str]:
    """In the order in which they served: each has a colour."""
    return list(dict.fromkeys(span.precision for span in report.spans))


def depth(report: Report) -> str:
    """Layers that served, a colour a precision, dotted where the candidate changes; crosses are changes that
    did not stay."""
    spans = report.spans
    undone = [change for change in report.changes if change.result != "Promoted"]
    most = max([*(span.layers for span in spans), *(change.layers for change in undone)])
    frame = _Frame(report.begin, report.end, 0, _above(most))
    said = "; ".join(f"{_clock(s.begin, report)}: {s.layers} layers of {s.candidate}" for s in spans)
    svg = _picture("Layers loaded, over time", said)
    _axes(svg, frame, report, whole=True)
    order = precisions(report)
    for before, span in zip([None, *spans], spans, strict=False):
        colour = f"c{order.index(span.precision) % COLOURS}"
        if before is not None:
            other = "other" if before.candidate != span.candidate else ""
            _line(svg, f"step {other}", frame, span.begin, before.layers, span.begin, span.layers)
        line = _line(svg, f"served {colour}", frame, span.begin, span.layers, span.end, span.layers)
        SubElement(line, "title").text = _span_in_words(span, report)
        _name(svg, frame, span)
    for change in undone:
        x, y = frame.x(change.time), frame.y(change.layers)
        mark = SubElement(
            svg, "path", {"class": "undone", "d": f"M{x - 5} {y - 5}l10 10M{x - 5} {y + 5}l10 -10"}
        )
        SubElement(mark, "title").text = f"{change.result}: {change.after}"
    return _text_of(svg)


def requests(report: Report) -> str:
    """Counted in all: what is known at the times at which they were counted."""
    counts = report.counts
    frame = _Frame(report.begin, report.end, 0, _above(max(count.requests for count in counts)))
    said = "; ".join(f"{_clock(c.time, report)}: {c.requests}" for c in counts)
    svg = _picture("Requests served in all, over time", said)
    _axes(svg, frame, report, whole=True)
    points = " ".join(f"{frame.x(count.time)},{frame.y(count.requests)}" for count in counts)
    SubElement(svg, "polyline", {"class": "counted", "points": points})
    for count in counts:
        _dot(svg, frame, count.time, count.requests, _count_in_words(count, report))
    return _text_of(svg)


def decided(report: Report) -> str:
    """The quality that each decision went by, with the bound that had to hold."""
    target, judged = report.weighed.target, report.judged
    values = [value for each in judged for value in (each.percent, each.low)]
    frame = _percent_frame(report, [*values, *([target] if target is not None else [])])
    said = "; ".join(_judged_in_words(each, report) for each in judged)
    svg = _picture("Quality that decisions used, percent of full depth", said)
    _axes(svg, frame, report)
    if target is not None:
        line = _line(svg, "target", frame, report.begin, target, report.end, target)
        SubElement(line, "title").text = f"target: {target} %"
    for each in judged:
        _line(svg, "bound", frame, each.time, each.low, each.time, each.percent)
        _dot(svg, frame, each.time, each.percent, _judged_in_words(each, report))
    return _text_of(svg)


def quality(options: Sequence[WeighedOption], target: int | None) -> str:
    """A line an option: its mean with both bounds, against what is asked."""
    known = [option for option in options if option.quality_percent is not None]
    bounds = [(o.quality_low or 0.0, min(o.quality_high or 0.0, 150.0)) for o in known]
    low = min([*(low for low, _ in bounds), target or 100, 95])
    high = max([*(high for _, high in bounds), target or 0, 100])
    height = _TOP + _ROW * len(known) + _BOTTOM

    def x(percent: float) -> float:
        share = (min(max(percent, low), high) - low) / ((high - low) or 1)
        return round(_NAMES + share * (_WIDTH - _NAMES - 2 * _RIGHT), 1)

    said = "; ".join(_option_in_words(option) for option in known)
    svg = _picture("Quality of each option, percent of full depth", said, height)
    for tick in _ticks(low, high):
        _grid(svg, x(tick), _TOP, x(tick), height - _BOTTOM)
        _label(svg, x(tick), height - 10, f"{tick:g}", "middle")
    if target is not None:
        _straight(svg, "target", x(target), _TOP, x(target), height - _BOTTOM)
    for place, (option, (least, most)) in enumerate(zip(known, bounds, strict=True)):
        y = _TOP + _ROW * place + _ROW / 2
        _label(svg, _NAMES - 10, y + 4, _option(option) + (" (serves)" if option.serves else ""), "end")
        kind = "c0" if option.feasible else "out"
        _straight(svg, f"bound {kind}", x(least), y, x(most), y)
        dot = SubElement(
            svg, "circle", {"class": f"dot {kind}", "cx": str(x(option.quality_percent or 0)), "cy": str(y)}
        )
        dot.set("r", "6" if option.serves else "4")
        SubElement(dot, "title").text = _option_in_words(option)
    return _text_of(svg)


# -- words ---------------------------------------------------------------------------------------------------


def _span_in_words(span: Span, report: Report) -> str:
    times = f"{_clock(span.begin, report)} to {_clock(span.end, report)}"
    return f"{span.layers} layers of {span.candidate} in {span.precision}, {span.batch} rows, {times}"


def _count_in_words(count: Count, report: Report) -> str:
    return f"at least {count.requests} requests by {_clock(count.time, report)} ({count.when})"


def _judged_in_words(each: Judged, report: Report) -> str:
    return f"{_clock(each.time, report)}: {each.percent:.1f} %, at least {each.low:.1f} ({each.what})"


def _option(option: WeighedOption) -> str:
    return f"{option.candidate} at {option.layers}, {option.precision}"


def _option_in_words(option: WeighedOption) -> str:
    bounds = f"{option.quality_low:.1f} to {option.quality_high:.1f}"
    return f"{_option(option)}: {option.quality_percent:.1f} % ({bounds})"


def _clock(time: datetime, report: Report) -> str:
    return time.strftime(_form(report.end - report.begin))


def _form(span: timedelta) -> str:
    """As much of a time as tells it from the others in a chart."""
    if span > timedelta(days=5):
        return "%Y-%m-%d"
    if span > timedelta(hours=12):
        return "%m-%d %H:%M"
    return "%H:%M" if span > timedelta(hours=1) else "%H:%M:%S"


# -- drawing -------------------------------------------------------------------------------------------------


def _picture(title: str, said: str, height: int = _HEIGHT) -> Element:
    size = {"viewBox": f"0 0 {_WIDTH} {height}", "width": str(_WIDTH), "height": str(height)}
    svg = Element("svg", {"class": "chart", "role": "img", "aria-label": title, **size})
    SubElement(svg, "title").text = title
    SubElement(svg, "desc").text = said
    return svg


def _text_of(svg: Element) -> str:
    return tostring(svg, encoding="unicode")


def _axes(svg: Element, frame: _Frame, report: Report, whole: bool = False) -> None:
    for tick in _ticks(frame.low, frame.high, whole):
        _grid(svg, _LEFT, frame.y(tick), _WIDTH - _RIGHT, frame.y(tick))
        _label(svg, _LEFT - 8, frame.y(tick) + 4, f"{tick:,g}", "end")
    steps = 4
    for step in range(steps + 1):
        time = frame.begin + (frame.end - frame.begin) * step / steps
        anchor = "start" if step == 0 else "end" if step == steps else "middle"
        _label(svg, frame.x(time), _HEIGHT - 8, _clock(time.astimezone(UTC), report), anchor)


def _percent_frame(report: Report, values: Sequence[float]) -> _Frame:
    return _Frame(report.begin, report.end, max(0.0, floor(min(values) / 5) * 5 - 5), max(100.0, *values))


def _above(most: float) -> float:
    return most * 1.15 or 1


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """At most six round numbers."""
    span = max(high - low, 1e-9)
    size: float = 10 ** floor(log10(span / 5))
    step = next(size * by for by in (1, 2, 5, 10) if span / (size * by) <= 5)
    step = max(step, 1.0) if whole else step
    first = -floor(-low / step)
    return [round(number * step, 9) for number in range(first, floor(high / step + 1e-9) + 1)]


def _line(
    svg: Element, kind: str, frame: _Frame, begin: datetime, before: float, end: datetime, after: float
) -> Element:
    return _straight(svg, kind.strip(), frame.x(begin), frame.y(before), frame.x(end), frame.y(after))


def _straight(svg: Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> Element:
    ends = {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2)}
    return SubElement(svg, "line", {"class": kind, **ends})


def _grid(svg: Element, x1: float, y1: float, x2: float, y2: float) -> None:
    _straight(svg, "grid", x1, y1, x2, y2)


def _label(svg: Element, x: float, y: float, text: str, anchor: str) -> None:
    SubElement(svg, "text", {"x": str(x), "y": str(y), "text-anchor": anchor}).text = text


def _name(svg: Element, frame: _Frame, span: Span) -> None:
    """Above its line, where that is long enough."""
    text = f"{span.candidate}, {span.layers}"
    if frame.x(span.end) - frame.x(span.begin) > 7 * len(text):
        _label(svg, frame.x(span.begin) + 4, frame.y(span.layers) - 7, text, "start")


def _dot(svg: Element, frame: _Frame, time: datetime, value: float, said: str) -> None:
    place = {"cx": str(frame.x(time)), "cy": str(frame.y(value)), "r": "4"}
    dot = SubElement(svg, "circle", {"class": "dot c0", **place})
    SubElement(dot, "title").text = said
