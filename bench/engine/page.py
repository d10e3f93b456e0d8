"""The section of docs/benchmarks.md on one result of `bench.engine`, and its pictures.

Called by `bench.page` with what `bench.engine --output json` printed, once for each kind of processor or
instruction set. No figure is typed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.engine.figures import SPEEDS
from bench.page.tables import table, with_range

_KINDS = {
    "decode": "Decoding: new tokens a second after the first of each row",
    "end-to-end": "End to end: new tokens a second, the prompts' time included",
    "prefill": "Prefill: tokens of prompts a second",
}


def section(file: Path, result: Mapping[str, Any]) -> Iterator[str]:
    found, machine = result["figures"], result["machine"]
    held = "" if found["isa"] == "native" else f", held to {found['isa'].upper()}"
    yield f"### {machine['cpu']}{held}"
    yield ""
    sets = ", ".join(found["processor"]) or "no instruction set that engines choose by"
    yield f"{found['model']}, {found['threads']} threads of {machine['cores']} cores ({sets}),"
    yield f"{result['date']}; [{file.name}](../bench/results/{file.name}), `{result['command']}`."
    yield "Median (least to greatest) of the rounds."
    for shape in _shapes(result):
        yield from ["", f"#### Prompts of {shape[0]} tokens, {shape[1]} new ones", ""]
        yield f"![tokens a second by batch](pictures/{_picture(file, shape)})"
        for kind, title in _KINDS.items():
            yield from ["", f"{title}.", "", *_speeds(result, shape, kind)]
        yield from ["", "Ours over the best peer of its class, round by round.", "", *_ratios(result, shape)]
    yield from ["", "#### Quality, and how each computes", "", *_qualities(result)]
    yield from ["", "#### Where a step's time goes", "", *_parts(result)]
    if found["leftOut"]:
        yield from ["", f"Left out, for want of time: {', '.join(found['leftOut'])}."]
    yield from _errors(result)


def _shapes(result: Mapping[str, Any]) -> list[tuple[int, int]]:
    return sorted({(cell["prompt"], cell["new"]) for cell in result["figures"]["cells"] if _measured(cell)})


def _batches(result: Mapping[str, Any], shape: tuple[int, int]) -> list[int]:
    cells = result["figures"]["cells"]
    return sorted(c["batch"] for c in cells if (c["prompt"], c["new"]) == shape and _measured(c))


def _measured(cell: Mapping[str, Any]) -> bool:
    return bool(cell["secondsFirstAndWhole"])


def _claims(result: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {claim["id"]: claim for claim in result["claims"]}


def _speed(result: Mapping[str, Any], kind: str, shape: tuple[int, int], batch: int, name: str) -> Any:
    word = name.replace(":", "-")
    return _claims(result).get(f"{kind}-{shape[0]}-{shape[1]}-batch-{batch}-{word}")


def _title(result: Mapping[str, Any], name: str) -> str:
    return f"{result['figures']['contenders'][name]['title']} {name.partition(':')[2]}"


# -- tables --------------------------------------------------------------------------------------------------


def _speeds(result: Mapping[str, Any], shape: tuple[int, int], kind: str) -> Iterator[str]:
    assert kind in SPEEDS
    batches = _batches(result, shape)
    rows = [
        [_title(result, name), *(with_range(_speed(result, kind, shape, batch, name)) for batch in batches)]
        for name in result["figures"]["contenders"]
    ]
    return table(["", *(f"batch {batch}" for batch in batches)], rows)


def _ratios(result: Mapping[str, Any], shape: tuple[int, int]) -> Iterator[str]:
    batches, rows = _batches(result, shape), list[list[str]]()
    for kind in SPEEDS:
        for label in ("16-bit", "8-bit"):
            starts = [f"{kind}-{shape[0]}-{shape[1]}-batch-{batch}-{label}-" for batch in batches]
            cells = [_ratio(result, start) for start in starts]
            if any(cells):
                rows.append([kind, label, *(cell or "-" for cell in cells)])
    return table(["", "class", *(f"batch {batch}" for batch in batches)], rows)


def _ratio(result: Mapping[str, Any], start: str) -> str:
    """With whom it is compared."""
    claim = next((c for c in result["claims"] if c["id"].startswith(start) and c["unit"] == "ratio"), None)
    return f"{with_range(claim)}, {claim['id'].rpartition('-over-')[2]}" if claim else ""


def _qualities(result: Mapping[str, Any]) -> Iterator[str]:
    found, claims = result["figures"], _claims(result)
    rows = []
    for name, about in found["contenders"].items():
        for_each = [_quality(claims, domain, name.replace(":", "-")) for domain in found["scored"]]
        held = "" if about["heldToIsa"] else "; not held to the instruction set"
        rows.append([_title(result, name), *for_each, about["numerics"] + held])
    heads = [f"{domain}, bits per byte (of float32's quality)" for domain in found["scored"]]
    return table(["", *heads, "computes in"], rows)


def _quality(claims: Mapping[str, Mapping[str, Any]], domain: str, word: str) -> str:
    bits, percent = claims.get(f"bits-per-byte-{domain}-{word}"), claims.get(f"quality-{domain}-{word}")
    if bits is None:
        return "-"
    return f"{bits['value']:.4f}" + (f" ({percent['value']:.2f} %)" if percent else "")


def _parts(result: Mapping[str, Any]) -> Iterator[str]:
    found = result["figures"]["millisecondsOfAStep"]
    parts = next((list(spent) for by_batch in found.values() for spent in by_batch.values()), [])
    rows = [
        [_title(result, name), batch, *(f"{spent[part]:.2f}" for part in parts)]
        for name, by_batch in found.items()
        for batch, spent in by_batch.items()
    ]
    bandwidth = _claims(result).get("read-bandwidth")
    yield "Milliseconds of a decode step, by part."
    if bandwidth:
        yield f"Reading memory alone: {bandwidth['value']:g} GB/s; of what that would allow at batch 1,"
        yield f"engines reach: {', '.join(_rooflines(result))}."
    if told := ", ".join(_bare(result)):
        yield f"Products of one row alone, from memory and from a cache: {told}."
    yield ""
    yield from table(["", "batch", *parts], rows)


def _rooflines(result: Mapping[str, Any]) -> Iterator[str]:
    [shape, *_] = _shapes(result)
    for name in result["figures"]["contenders"]:
        if claim := _speed(result, "roofline", shape, 1, name):
            yield f"{_title(result, name)} {100 * claim['value']:.0f} %"


def _bare(result: Mapping[str, Any]) -> Iterator[str]:
    for name, rates in result["figures"].get("bareProductsBytesPerSecond", {}).items():
        if rates:
            memory, cache = (f"{rates[place] / 1e9:.0f}" for place in ("memory", "cache"))
            yield f"{_title(result, name)} {memory} and {cache} GB/s"


def _errors(result: Mapping[str, Any]) -> Iterator[str]:
    """What did not run, in the words of whoever did not."""
    found = result["figures"]
    told = [
        f"- {_title(result, name)}, {what}: {error}"
        for name, about in found["contenders"].items()
        for what, error in about["errors"].items()
    ]
    told += [
        f"- {_title(result, name)}, {cell['prompt']}/{cell['new']} at batch {cell['batch']}: {error}"
        for cell in found["cells"]
        for name, error in cell["errors"].items()
    ]
    if told:
        yield from ["", "What did not run:", "", *told]


# -- pictures ------------------------------------------------------------------------------------------------


def draw(file: Path, result: Mapping[str, Any], folder: Path) -> None:
    """One for each shape. Needs matplotlib (extra `plot`)."""
    from bench.engine import plot

    for shape in _shapes(result):
        batches = _batches(result, shape)
        series = {
            _title(result, name): [
                _ends(_speed(result, "end-to-end", shape, batch, name)) for batch in batches
            ]
            for name in result["figures"]["contenders"]
        }
        title = f"{shape[0]} + {shape[1]} tokens, end to end"
        plot.draw(title, [f"batch {batch}" for batch in batches], series, folder / _picture(file, shape))


def _picture(file: Path, shape: tuple[int, int]) -> str:
    return f"{file.stem}-{shape[0]}-{shape[1]}.svg"


def _ends(claim: Mapping[str, Any] | None) -> list[float] | None:
    return [claim["value"], claim["low"], claim["high"]] if claim else None
