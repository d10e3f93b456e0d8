"""Writes docs/frontier.md and its picture, which README.md shows too, from the committed result:
`python -m bench.frontier.page`.

Reads bench/results/frontier.json, what `bench.frontier --output json` printed. No figure in the page is
typed by hand. --result and --docs: of another result, into another folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helios_contract.serves import REFERENCE, Precision

from bench.engine.environments import ROOT
from bench.frontier.front import Point, by_speed, name
from bench.page.tables import table, with_range

_RESULT = ROOT / "bench" / "results" / "frontier.json"
_PICTURE = Path("pictures") / "frontier.svg"
"""Within the folder of the page."""
_BEGIN = "<!-- picture: `python -m bench.frontier.page` puts it here -->\n"
_END = "<!-- end of picture -->"
"""In README.md."""
_HEAD = """# What depth and precision are worth beside each other

What `python -m bench.frontier` measures: under one memory limit every depth in every precision of weights
and of keys and values. Quality is in per cent of full depth as published, teacher-forced on text that no
head was trained on; rows are requests that fit at once; tokens a second are those of a saturating load at
that batch. This page is written by `python -m bench.frontier.page` from `bench/results/frontier.json`.
"""
_BOTH = Precision("int8", "int8")
_NOTHING = "\nNo result is committed yet. So nothing is claimed here.\n"
_BELOW_THE_TABLE = """\
In brackets: the 95 per cent interval over the texts; of speed, least and greatest of the rounds. **Bold**:
on the Pareto front of quality and tokens a second for that kind of text, so that nothing measured is better
in one and as good in the other."""
_INT4 = """\
SmolLM2's weights come from a file of 4 bits in groups of 32: int4, which has such groups, loses nothing *of
it*, by construction. Of a model that was trained in floats it does."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frontier.page", description=__doc__)
    parser.add_argument("--result", type=Path, default=_RESULT)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args(argv)
    result = json.loads(options.result.read_text()) if options.result.exists() else None
    if result:
        from bench.frontier.plot import draw  # matplotlib: needed for the picture alone

        picture = options.docs / _PICTURE
        picture.parent.mkdir(parents=True, exist_ok=True)
        found = result["figures"]
        draw(_points(result), f"{found['model']}, {found['memoryMiB'][0]} MiB", picture)
    (options.docs / "frontier.md").write_text(page(result), encoding="utf-8")
    readme = options.docs.parent / "README.md"
    if readme.exists():
        text = with_picture(readme.read_text(encoding="utf-8"), options.docs.name if result else None)
        readme.write_text(text, encoding="utf-8")


def with_picture(readme: str, docs: str | None) -> str:
    """The readme with the picture between its two marks. docs: the folder's name; None: no picture."""
    before, found, rest = readme.partition(_BEGIN)
    shown = f"![quality against tokens a second]({docs}/{_PICTURE.as_posix()})\n" if docs else ""
    return f"{before}{found}{shown}{rest[rest.index(_END) :]}" if found else readme


def page(result: Mapping[str, Any] | None) -> str:
    """Markdown. None: there is no result."""
    return _HEAD + ("\n" + "\n".join(_sections(result)) + "\n" if result else _NOTHING)


def _sections(result: Mapping[str, Any]) -> Iterator[str]:
    found, machine = result["figures"], result["machine"]
    first, *more = found["memoryMiB"]
    yield f"{found['model']} on {machine['cpu']}, {machine['cores']} cores, {result['date']}; requests of"
    yield f"{found['tokensPerRequest']} tokens; [frontier.json](../bench/results/frontier.json),"
    yield f"`{result['command']}`."
    yield ""
    yield f"## In {first} MiB"
    yield ""
    yield f"![quality against tokens a second]({_PICTURE.as_posix()})"
    yield ""
    yield from table(*_measured(result))
    yield ""
    yield _BELOW_THE_TABLE
    yield f"Joules a token: {found['energySource'] or 'nothing measured them'}."
    if "smollm2" in found["model"]:
        yield _INT4
    yield ""
    yield "## What the memory buys"
    yield ""
    yield from (f"- {line}." for line in _bought(result))
    yield ""
    yield "## Which depths below full survive"
    yield ""
    yield from (f"- {line}." for line in found["says"])
    for limit in (str(first), *map(str, more)):
        yield from ["", f"## Rows and the memory law in {limit} MiB", ""]
        rows = [
            [key, str(one["law"]), str(one["planned"]), str(one["reached"] or "not loaded")]
            for key, one in found["rows"][limit].items()
        ]
        yield from table(
            ["layers, weights, KV", "by the law", "as a process planned", "at once under load"], rows
        )


def _bought(result: Mapping[str, Any]) -> Iterator[str]:
    """Of the first limit: rows beside full depth as published, for 8 bits of both at each depth; then how far
    processes are from the law at every limit."""
    points, claims = _points(result), {claim["id"]: claim for claim in result["claims"]}
    deepest = max(point.layers for point in points)
    full = next(point for point in points if (point.layers, point.precision) == (deepest, REFERENCE))
    first = result["figures"]["memoryMiB"][0]
    yield f"{first} MiB: {full.layers} layers as published hold {full.rows} rows"
    for point in points:
        if point.precision == _BOTH and point.rows:
            quality = ", ".join(f"{share:.2f} % on {domain}" for domain, share in point.quality.items())
            many = f"{point.rows} rows, {point.rows / full.rows:.1f} times as many"
            yield f"{point.layers} layers in {_BOTH} hold {many}, at a quality of {quality}"
    for limit in result["figures"]["memoryMiB"]:
        if off := claims.get(f"rows-percent-off-the-law-in-{limit}-mib"):
            yield f"{limit} MiB: what processes plan is at most {off['high']:.1f} % of the rows off the law"


def _measured(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    claims = {claim["id"]: claim for claim in result["claims"]}
    points, domains = _points(result), list(result["figures"]["front"])
    on_front = {domain: {point.key for point in by_speed(points, domain)} for domain in domains}
    head = [
        "layers",
        "weights",
        "KV",
        *(f"quality on {domain} %" for domain in domains),
        "rows",
        "tokens/s",
        "x",
        "J/token",
    ]
    rows = []
    for point in points:
        key = name(point.key)
        qualities = []
        for domain in domains:
            told = with_range(claims[f"quality-{domain}-{key}"], 2)
            qualities.append(f"**{told}**" if point.key in on_front[domain] else told)
        ratio, joules = claims.get(f"throughput-ratio-{key}"), claims.get(f"joules-per-token-{key}")
        rows.append(
            [
                str(point.layers),
                point.precision.weight_dtype,
                point.precision.kv_cache_dtype,
                *qualities,
                str(point.rows),
                with_range(claims[f"tokens-per-second-{key}"], 0),
                with_range(ratio, 2) if ratio else "1",
                f"{joules['value']:.3f}" if joules else "-",
            ]
        )
    return head, rows


def _points(result: Mapping[str, Any]) -> list[Point]:
    return [
        Point(
            layers=point["layers"],
            precision=Precision(**point["precision"]),
            quality=point["quality"],
            rows=point["rows"],
            tokens_per_second=point["tokens_per_second"],
            joules_per_token=point["joules_per_token"],
        )
        for point in result["figures"]["points"]
    ]


if __name__ == "__main__":
    main()
