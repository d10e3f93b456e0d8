"""The section of docs/benchmarks.md about two models of which each is better on its own text. Called by
`bench.page` with a committed result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.page.tables import table, with_range
from bench.pair.figures import BOTH

_HEAD = ["run", "phase", "served by", "quality %", "bits/byte", "tokens/s", "p99 response, ms"]
_CHANGES = [
    "change", "s", "s into its phase", "requests before", "at quality %", "tokens/s meanwhile", "else"
]  # fmt: skip


def section(result: Mapping[str, Any]) -> Iterator[str]:
    found = result["figures"]
    claims = {claim["id"]: claim for claim in result["claims"]}
    yield "What each model is worth on text that neither was trained on:"
    yield ""
    kinds = [kind for kind in found["candidates"] if f"bits-per-byte-base-on-{kind}" in claims]
    rows = [
        [model, *(with_range(claims[f"bits-per-byte-{model}-on-{kind}"], 3) for kind in kinds)]
        for model in ("base", *found["candidates"])
    ]
    yield from table(["model", *(f"bits/byte on {kind}" for kind in kinds)], rows)
    yield ""
    yield f"One trace, {found['callers']} callers, answers of {found['osl']} tokens; `{BOTH}` may switch,"
    yield f"objective quality, {found['minQualityPercent']} % of the better one asked. Quality is of all"
    yield "requests, in per cent of what the better model of the phase would have made of them:"
    yield ""
    yield from table(_HEAD, list(_runs(found["rounds"], claims)))
    changes = [change for one in found["rounds"] for change in one[BOTH]["changes"]]
    if not changes:
        yield from [
            "",
            "The loop changed nothing. What it said last in each phase, and after how many requests:",
            "",
        ]
        yield from (
            f"- {phase['kind']}: {phase['decided'][-1]}" for phase in _phases(found) if phase["decided"]
        )
        yield ""
        return
    yield from [
        "",
        "What each change cost; a quality is that of the requests which the old model answered:",
        "",
    ]
    yield from table(_CHANGES, [_change(change) for change in changes])
    yield ""


def _phases(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [phase for one in found["rounds"] for phase in one[BOTH]["phases"]]


def _runs(rounds: list[Mapping[str, Any]], claims: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, run in rounds[0].items():
        for number, phase in enumerate(run["phases"]):
            served = _shares([one[name]["phases"][number]["servedBy"] for one in rounds])
            at = f"{name}-{number + 1}-{phase['kind']}"
            yield [name, f"{number + 1}, {phase['kind']}", served, *_figures(at, claims)]
        yield [f"**{name}**", "all", "", *_figures(name, claims)]


def _shares(served: list[Mapping[str, int]]) -> str:
    """ "prose 71 %, code 29 %", of all rounds."""
    total = sum(sum(each.values()) for each in served)
    names = dict.fromkeys(name for each in served for name in each)
    shares = {name: sum(each.get(name, 0) for each in served) / total for name in names}
    if len(shares) == 1:
        return next(iter(shares))
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


def _figures(at: str, claims: Mapping[str, Any]) -> list[str]:
    digits = {"quality": 2, "bits-per-byte": 3, "tokens-per-second": 0, "response-p99": 0}
    return [with_range(claims[f"{what}-{at}"], places) for what, places in digits.items()]


def _change(change: Mapping[str, Any]) -> list[str]:
    return [
        f"{change['kind']} to {change['to']}",
        f"{change['seconds']:.0f}",
        f"{change['secondsIntoPhase']:.0f}",
        str(change["requestsBefore"]),
        _or_none(change["qualityPercentBefore"], 1),
        _or_none(change["tokensPerSecondMeanwhile"], 0),
        _or_none(change["tokensPerSecondElse"], 0),
    ]


def _or_none(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
