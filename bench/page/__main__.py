"""Writes docs/benchmarks.md and its pictures from the committed results: `python -m bench.page`.

Every file of bench/results has a section: what was run, on what, when, by which command, and every claim.
What is asked of them stands in `bounds`; what is not reached is said first. No figure in the page is typed by
hand. --results and --docs: of other results, into another folder. Results of an engine that was slower or
faster than today's are named.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helios_server.planning import PERFORMANCE_VERSION

from bench.engine import page as engine
from bench.engine.environments import ROOT
from bench.joint import page as joint
from bench.loop import page as loop
from bench.page.bounds import BOUNDS, Held, Verdict, held, module_of
from bench.page.tables import ends, table, with_range
from bench.pair import page as pair

Results = Mapping[Path, Mapping[str, Any]]
_ENGINE, _TESTS = "bench.engine", "tests.long"
_JOINT, _LOOP, _PAIR = "bench.joint", "bench.loop", "bench.pair"
_WITHOUT_ENGINE = {"bench.operator", _TESTS}
"""What these measure does not change with PERFORMANCE_VERSION."""
_RAISED_FOR = """\
attention ([decision 0202](decisions/0202-fetched-where-it-is-known.md)) that waits less for keys and
values"""
"""What made PERFORMANCE_VERSION what it is."""
_PICTURES = Path("pictures")
"""Within the folder of the page."""
_FEW = 12
"""Claims that are shown at once; more are folded."""
_HEAD = """# Benchmarks

What was measured, beside what is asked. This page is written by `python -m bench.page` from the files in
`bench/results`, each of which is what a bench printed with `--output json`: what is not here was not kept.
Figures are medians, with the least and the greatest of the rounds in brackets, or the interval that the bench
names.
"""
_ASKED = """\
An engine's class is the width of its weights: 16 bits (peers with float32 weights count too) or 8. A bound is
reached when the worst round holds it."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args(argv)
    from bench.page.picture import draw  # matplotlib: needed for the pictures alone

    results = read(options.results)
    folder = options.docs / _PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for file, result in results.items():
        if module_of(result) == _ENGINE:
            engine.draw(file, result, folder)
        elif module_of(result) == _JOINT:
            joint.draw(file, result, folder)
    draw([one for _, one in _held(results)], folder / "bounds.svg")
    (options.docs / "benchmarks.md").write_text(page(results), encoding="utf-8")


def read(folder: Path) -> Results:
    """By file. A result without claims has those that its figures come to."""
    found = {file: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    return {file: result | {"claims": _claims(result)} for file, result in found.items()}


def page(results: Results) -> str:
    parts = [*_outdated(results), *_asked(results), *_engines(results), *_others(results)]
    return _HEAD + "\n" + "\n".join(parts) + "\n"


def _outdated(results: Results) -> Iterator[str]:
    """What was measured of another engine than today's, so that nobody takes it for today's."""
    found = [
        _link(file)
        for file, result in results.items()
        if module_of(result) not in _WITHOUT_ENGINE
        and result.get("performanceVersion", 0) < PERFORMANCE_VERSION
    ]
    if found:
        yield "**Of an earlier engine.** These were measured before the engine's performance version became"
        yield f"{PERFORMANCE_VERSION}, by {_RAISED_FOR}."
        yield "Their benches are to be run again; until then they do not say how fast today's engine is:"
        yield f"{', '.join(found)}."
        yield ""


# -- what is asked -------------------------------------------------------------------------------------------


def _asked(results: Results) -> Iterator[str]:
    found = _held(results)
    reached = sum(one.verdict is Verdict.REACHED for _, one in found)
    yield "## What is asked, and what is not reached"
    yield ""
    yield f"{reached} of {len(found)} bounds are reached."
    yield _ASKED
    yield ""
    yield f"![the worst figure of each bound, beside what is asked]({(_PICTURES / 'bounds.svg').as_posix()})"
    for verdict, title in (
        (Verdict.MISSED, "Not reached"),
        (Verdict.WITHIN, "Reached by the median, not by every round"),
    ):
        short_of = [(file, one) for file, one in found if one.verdict is verdict]
        if short_of:
            yield from ["", f"{title}:", ""]
            yield from (_in_words(file, one) for file, one in short_of)
    yield from ["", "All bounds:", ""]
    rows = [
        [one.bound.asked, one.bound.words, with_range(one.worst), one.verdict, _link(file)]
        for file, one in found
    ]
    yield from table(["bound", "asked", "worst figure", "verdict", "result"], rows)
    if absent := _not_measured(results):
        yield from ["", "Asked, and no result is committed:", ""]
        yield from (f"- {bound.asked}: {bound.words} (`python -m {bound.bench}`)" for bound in absent)
    yield ""


def _held(results: Results) -> list[tuple[Path, Held]]:
    return [(file, one) for file, result in results.items() for one in held(result, BOUNDS)]


def _not_measured(results: Results) -> list[Any]:
    known = {one.bound for _, one in _held(results)}
    return [bound for bound in BOUNDS if bound not in known]


def _in_words(file: Path, one: Held) -> str:
    """ "- **decode at 1 row** (…): at least 0.95 asked; at worst 0.75 (…), `…`; short of it: 1 of 2."."""
    said = f"{one.bound.words} asked; at worst {with_range(one.worst)}, `{one.worst['id']}`"
    many = f"; short of it: {one.missing} of {one.claims}" if one.claims > 1 and one.missing else ""
    return f"- **{one.bound.asked}** ({_link(file)}): {said}{many}."


# -- sections ------------------------------------------------------------------------------------------------


def _engines(results: Results) -> Iterator[str]:
    found = {file: result for file, result in results.items() if module_of(result) == _ENGINE}
    yield "## Beside other engines"
    yield ""
    yield "What `helios bench engine` measured; how, and what to know of it, says"
    yield "[the engine](engine.md#beside-other-engines)."
    if not found:
        yield from ["", "No result is committed yet."]
    for file, result in found.items():
        yield ""
        yield from engine.section(file, result)
    yield ""


def _others(results: Results) -> Iterator[str]:
    for file, result in results.items():
        if module_of(result) != _ENGINE:
            yield from [f"## {file.stem}", "", _about(module_of(result)), ""]
            yield f"{_machine(result)}, {result['date']}; {_link(file)}, `{result['command']}`."
            yield ""
            yield from _own(file, result)
            yield from _claims_table(result["claims"])
            yield ""


def _own(file: Path, result: Mapping[str, Any]) -> Iterator[str]:
    """What a bench shows of its result before all of its claims."""
    if module_of(result) == _JOINT:
        yield from joint.section(file, result)
    elif module_of(result) == _LOOP:
        yield from loop.arms(result)
    elif module_of(result) == _PAIR:
        yield from pair.section(result)


def _claims_table(claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for claim in claims:
        value, low, high = ends(claim)
        rows.append([f"`{claim['id']}`", value, "" if low == high else f"{low} to {high}", claim["unit"]])
    lines = list(table(["figure", "median", "least to greatest", "unit"], rows))
    if len(claims) <= _FEW:
        yield from lines
        return
    yield from [f"<details><summary>{len(claims)} figures</summary>", "", *lines, "", "</details>"]


def _claims(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "claims" in result:
        return list(result["claims"])
    assert module_of(result) == _TESTS, result["command"]
    counts = {name: (result["figures"][name], "tests") for name in ("tests", "passed", "failed", "skipped")}
    return [
        {"id": name, "value": value, "low": value, "high": value, "unit": unit}
        for name, (value, unit) in (counts | {"seconds": (result["seconds"], "s")}).items()
    ]


def _about(module: str) -> str:
    """The first paragraph of what a bench says of itself."""
    path = ROOT / module.replace(".", "/")
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    return str(ast.get_docstring(ast.parse(source.read_text()))).partition("\n\n")[0]


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    accelerator = machine.get("accelerator") or result.get("figures", {}).get("accelerator")
    beside = f" beside {accelerator}" if accelerator else ""
    return f"{machine['cpu']}, {machine['cores']} cores{beside}"


def _link(file: Path) -> str:
    return f"[{file.name}](../bench/results/{file.name})"


if __name__ == "__main__":
    main()
