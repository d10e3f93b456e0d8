"""The section of docs/benchmarks.md about the joint curve, and its picture. Called by `bench.page` with a
committed result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helios_contract.serves import Precision

from bench.frontier.front import name
from bench.joint.curve import Point, on_front
from bench.page.tables import table, with_range

_HEAD = ["layers", "weights", "KV", "rows", "tokens/s", "p99 response, ms", "first token, ms", "its p99, ms"]


def picture(file: Path) -> str:
    return f"{file.stem}.svg"


def draw(file: Path, result: Mapping[str, Any], folder: Path) -> None:
    """file: of the result; folder: for pictures. Needs matplotlib."""
    from bench.joint import plot

    found = result["figures"]
    plot.draw(_points(result), f"{found['model']}, {found['memoryMiB']} MiB", folder / picture(file))


def section(file: Path, result: Mapping[str, Any]) -> Iterator[str]:
    found = result["figures"]
    points = _points(result)
    claims = {claim["id"]: claim for claim in result["claims"]}
    unit = found["requestsPerSecondAtLoad1"]
    yield f"![throughput and response times against the offered load](pictures/{picture(file)})"
    yield ""
    yield f"In {found['memoryMiB']} MiB; prompts of {found['prompt']} tokens, answers of {found['new']}."
    yield f"Load 1 is {unit:.2f} requests/s, what full depth as published answers when more wait than it has"
    yield "rows."
    yield "**Bold**: nothing measured under that load is better in quality, tokens/s or p99 response and as"
    yield "good in all of them."
    yield ""
    yield from table(
        ["layers, weights, KV", *(f"quality on {domain} %" for domain in points[0].quality)],
        _quality(points, claims),
    )
    for load in sorted({point.load for point in points}):
        here = [point for point in points if point.load == load]
        best = {point.key for point in on_front(points, load)}
        yield from ["", f"Load {load:g}, {here[0].offered:.2f} requests/s offered:", ""]
        yield from table(_HEAD, [_row(point, point.key in best, found, claims) for point in here])
    yield from ["", *(f"- {line}." for line in found["says"]), ""]


def _quality(points: list[Point], claims: Mapping[str, Any]) -> list[list[str]]:
    keys = dict.fromkeys(point.key for point in points)
    domains = list(points[0].quality)
    return [
        [
            name(key).replace("-", ", "),
            *(with_range(claims[f"quality-{domain}-{name(key)}"], 2) for domain in domains),
        ]
        for key in keys
    ]


def _row(point: Point, best: bool, found: Mapping[str, Any], claims: Mapping[str, Any]) -> list[str]:
    layers, precision = point.key
    at = f"{name(point.key)}-load-{point.load:g}"
    measured = [
        with_range(claims[f"{what}-{at}"], 0)
        for what in ("tokens-per-second", "e2e-p99", "ttft-p50", "ttft-p99")
    ]
    depth = f"**{layers}**" if best else str(layers)
    rows = str(found["rows"][name(point.key)])
    return [depth, precision.weight_dtype, precision.kv_cache_dtype, rows, *measured]


def _points(result: Mapping[str, Any]) -> list[Point]:
    """As the figures keep them."""
    return [
        Point(
            key=(point["key"][0], Precision(**point["key"][1])),
            **{field: value for field, value in point.items() if field not in ("key", "name")},
        )
        for point in result["figures"]["points"]
    ]
