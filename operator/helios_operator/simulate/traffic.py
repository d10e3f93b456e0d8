"""Requests in order of their arrival: read from a request log, or generated from a seed.

Called by `helios simulate`. A line of a log that cannot be used is named by file, line and field. It must not
know what serves.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helios_contract import request_log
from helios_contract.codec import Malformed
from helios_contract.request_log import AuditLine, RequestLine
from helios_contract.telemetry import AuditRow

from helios_operator.errors import OperatorError
from helios_operator.simulate.truth import Text

_LINE_FIX = "give a file that `helios serve --request-log` wrote"
_MOST_TOKENS = 100_000_000
_PHASES = ("steady", "other texts", "mixed", "burst")
_MIXED, _BURST = 0.5, 2.0
"""Share of the other texts, and how many times the rate."""


@dataclass(frozen=True, slots=True)
class Request:
    """number: from 0, in order of arrival; arrived: seconds after the first one's."""

    number: int
    arrived: float
    prompt_tokens: int
    output_tokens: int
    text: Text


@dataclass(frozen=True)
class Recorded:
    """A request log as read: lines by arrival, audits by the place of their request in that order.

    left_out: requests without an answer, which tell of no load."""

    lines: tuple[RequestLine, ...]
    audits: Mapping[int, AuditRow] = field(default_factory=dict)
    left_out: int = 0

    @property
    def digests(self) -> frozenset[str]:
        """Of the bundles that were audited."""
        return frozenset(digest for row in self.audits.values() for digest, _ in row.exits)


# -- recorded ------------------------------------------------------------------------------------------------


def read(path: Path) -> Recorded:
    """OperatorError names the file's line and its field. An audit whose request is in an older file, rotated
    away, is left out."""
    lines: list[RequestLine] = []
    audits: dict[tuple[str, int], AuditRow] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if isinstance(line, AuditLine):
            _check_audit(line, where)
            audits[line.boot_id, line.request] = line.row
        else:
            _check_request(line, where)
            lines.append(line)
    served = sorted((line for line in lines if line.output_tokens), key=lambda line: line.arrived)
    if not served:
        raise OperatorError(str(path), "holds no request that was answered", _LINE_FIX)
    of_requests = {
        place: audits[line.boot_id, line.request]
        for place, line in enumerate(served)
        if line.request and (line.boot_id, line.request) in audits
    }
    return Recorded(tuple(served), of_requests, len(lines) - len(served))


def _lines(path: Path) -> Iterator[tuple[int, request_log.Line]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, request_log.from_json(text)
    except Malformed as error:
        field = f"{path}:{number}" + (f": {error.path}" if error.path else "")
        raise OperatorError(field, error.problem, _LINE_FIX) from None
    except UnicodeDecodeError:
        raise OperatorError(str(path), "is not UTF-8", _LINE_FIX) from None
    except OSError as error:
        raise OperatorError("TRACE", f"{path} cannot be read ({error.strerror})", _LINE_FIX) from None


def _check_request(line: RequestLine, where: str) -> None:
    _within(line.arrived, 0, math.inf, f"{where}: arrived", "seconds since 1970")
    _within(line.prompt_tokens, 1, _MOST_TOKENS, f"{where}: promptTokens", "tokens")
    _within(line.output_tokens, 0, _MOST_TOKENS, f"{where}: outputTokens", "tokens")


def _check_audit(line: AuditLine, where: str) -> None:
    scored = {"tokens": line.tokens, "bytes": line.bytes, "fullMillibits": line.full_millibits}
    for name, value in scored.items():
        _within(value, 1, math.inf, f"{where}: {name}", "above 0")
    for index, each in enumerate(line.exits):
        _within(each.millibits, 1, math.inf, f"{where}: exits[{index}].millibits", "above 0")
        _within(each.agreeing, 0, line.tokens, f"{where}: exits[{index}].agreeing", "of the tokens scored")


def _within(value: float, least: float, most: float, field: str, what: str) -> None:
    if not least <= value <= most or math.isinf(value):
        bounds = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:,.0f}"
        raise OperatorError(field, f"is {value:g}", f"give {bounds} ({what})")


def replayed(recorded: Recorded, texts: Sequence[Text]) -> Iterator[Request]:
    """texts: what each line's prompt is worth, in their order."""
    begin = recorded.lines[0].arrived
    for number, (line, text) in enumerate(zip(recorded.lines, texts, strict=True)):
        yield Request(number, line.arrived - begin, line.prompt_tokens, line.output_tokens, text)


def nearest_audit(recorded: Recorded) -> list[AuditRow]:
    """By line: its own audit, else that of the newest audited request before it, else the first one's."""
    places = sorted(recorded.audits)
    return [
        recorded.audits[places[max(0, bisect_right(places, place) - 1)]]
        for place in range(len(recorded.lines))
    ]


# -- generated -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """Poisson arrivals in phases: texts of the first kind, of the second, of both, and of the first at twice
    the rate; then again. rate: requests per second; shift: seconds that a phase lasts; isl, osl: mean tokens,
    about which lengths vary by a third."""

    requests: int
    rate: float
    shift: float
    seed: int
    isl: int
    osl: int


def generated(drift: Drift, kinds: Sequence[Sequence[Text]]) -> Iterator[Request]:
    """kinds: texts to draw from, of one or two kinds."""
    draw = random.Random(drift.seed)
    ordinary, other = kinds[0], kinds[-1]
    at = 0.0
    for number in range(drift.requests):
        phase = _PHASES[int(at / drift.shift) % len(_PHASES)]
        is_other = phase == "other texts" or (phase == "mixed" and draw.random() < _MIXED)
        text = draw.choice(other if is_other else ordinary)
        yield Request(number, at, _length(draw, drift.isl), _length(draw, drift.osl), text)
        at += draw.expovariate(drift.rate * (_BURST if phase == "burst" else 1.0))


def _length(draw: random.Random, mean: int) -> int:
    return max(1, round(mean * draw.uniform(2 / 3, 4 / 3)))


def by_ease(texts: Iterable[Text], ease: Mapping[Text, float]) -> list[list[Text]]:
    """Two halves: the texts that exits treat best, and the others."""
    ordered = sorted(texts, key=lambda text: -ease[text])
    middle = max(1, len(ordered) // 2)
    return [ordered[:middle], ordered[middle:] or ordered[:middle]]
