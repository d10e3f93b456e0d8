"""What a person sees of a profiling run: progress on stderr, and the result as tables or as JSON on
stdout.

Called by `command.py`. The tables show the document and nothing else, so that both forms always agree.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from helios_contract import results, tasks
from helios_contract.results import Inspection, Quality, Result, Tasks, Timing


class Progress:
    """Lines on stderr, each with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, message: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {message}", file=sys.stderr, flush=True)


def show(result: Result, output: str) -> None:
    """Prints the result on stdout; output: json | table. A failure has no table: it was said."""
    if output == "json":
        print(json.dumps(results.document(result), ensure_ascii=False, indent=2))
        return
    match result:
        case Inspection():
            _inspection(result)
        case Timing():
            _timing(result)
        case Quality():
            _quality(result)
        case Tasks():
            _tasks(result)


def _inspection(found: Inspection) -> None:
    rows: list[tuple[object, ...]] = []
    for name, one in found.resolved.items():
        exits = ", ".join(map(str, one.exit_layers)) or "none"
        heads = f"{one.head_kind} heads {one.exits_digest[:19]}" if one.exits_digest else "own head"
        rows.append((name, one.revision[:12], one.num_layers, exits, heads))
    rows += [(name, "", "", "", problem) for name, problem in found.problems.items()]
    table("Candidates", ("candidate", "revision", "layers", "exits", "heads"), rows)


def _quality(found: Quality) -> None:
    rows = [
        (
            row.candidate,
            exit_.layer,
            f"{exit_.millibits / 1000 / found.bytes:.3f}",
            f"{100 * row.exits[-1].millibits / exit_.millibits:.1f}",
            exit_.agreement_percent,
            exit_.first_agrees_percent,
            f"{exit_.mean_confidence_milli / 1000:.2f}",
            f"{exit_.ece_milli / 1000:.3f}",
        )
        for row in found.rows
        for exit_ in row.exits
    ]
    title = f"Quality on {found.prompts} prompts, {found.tokens} tokens"
    columns = (
        "candidate", "layers", "bits/byte", "quality %", "agreement %", "first agrees %", "confidence", "ECE",
    )  # fmt: skip
    table(title, columns, rows)


def _timing(found: Timing) -> None:
    rows = [
        (
            point.head_kind,
            point.layer_budget,
            point.rows,
            point.sampled,
            point.kv_tokens,
            f"{point.step_p50_us / 1000:.2f}",
            f"{point.step_p95_us / 1000:.2f}",
        )
        for point in found.points
    ]
    title = f"Step times; the fit is {found.fit.error_percent if found.fit else 0} % off"
    table(title, ("head", "layers", "new tokens", "sampled", "context", "p50 ms", "p95 ms"), rows)
    if found.energy:
        joules = [(each.layer_budget, each.rows, each.joules_per_megatoken) for each in found.energy.points]
        table(f"Energy ({found.energy.source})", ("layers", "rows", "J per million tokens"), joules)


def _tasks(found: Tasks) -> None:
    """Beside the passes of each option, how many tasks of the first it passes too."""
    passed = [tasks.passes(row.passes, found.tasks) for row in found.rows]
    rows = [
        (
            row.candidate,
            row.layer_budget,
            f"{row.weight_dtype}/{row.kv_cache_dtype}",
            sum(passes),
            f"{sum(a and b for a, b in zip(passed[0], passes, strict=True))} of {sum(passed[0])}",
        )
        for row, passes in zip(found.rows, passed, strict=True)
    ]
    columns = ("candidate", "layers", "precision", "passes", "of the first's")
    table(f"Tasks passed, of {found.tasks}", columns, rows)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Plain text, so that a log file reads like a terminal; names to the left, figures to the right."""
    cells = [columns, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        first, *others = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first, *(cell.strip().rjust(len(cell)) for cell in others)]).rstrip())
