"""What a person sees of the result of a profiling run: tables or JSON on stdout.

Called by `command.py`. The tables show the document, so that both forms always agree, and what it predicts
for one workload.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from helios_contract import results, tasks
from helios_contract.results import (
    CandidateQuality,
    Inspection,
    OptionPasses,
    Quality,
    Result,
    Tasks,
    Timing,
    Timings,
)
from helios_contract.serves import Precision

from helios_server.planning.timing import Workload
from helios_server.profile.outlook import Outlook

_PRECISION = ("weights", "KV")


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
        case Timings():
            for timing in result.timings:
                _timing(timing)
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
    _table("Candidates", ("candidate", "revision", "layers", "exits", "heads"), rows)


def _quality(found: Quality) -> None:
    """quality %: against full depth in the reference precision, whose rows are the first."""
    whole = found.rows[0].exits[-1].millibits
    rows = [
        (
            row.candidate,
            *_words(row),
            exit_.layer,
            f"{exit_.millibits / 1000 / found.bytes:.3f}",
            f"{100 * whole / exit_.millibits:.2f}",
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
        "candidate", *_PRECISION, "layers", "bits/byte", "quality %", "agreement %", "first agrees %",
        "confidence", "ECE",
    )  # fmt: skip
    _table(title, columns, rows)


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
    weights, kept = _words(found)
    title = f"Step times, weights {weights}, KV cache {kept}"
    title = f"{title}; the fit is {found.fit.error_percent if found.fit else 0} % off"
    _table(title, ("head", "layers", "new tokens", "sampled", "context", "p50 ms", "p95 ms"), rows)
    if found.energy:
        joules = [(each.layer_budget, each.rows, each.joules_per_megatoken) for each in found.energy.points]
        _table(f"Energy ({found.energy.source})", ("layers", "batch", "J per million tokens"), joules)


def _tasks(found: Tasks) -> None:
    """Beside the passes of each option, how many tasks of the first it passes too."""
    passed = [tasks.passes(row.passes, found.tasks) for row in found.rows]
    rows = [
        (
            row.candidate,
            *_words(row),
            row.layer_budget,
            sum(passes),
            f"{sum(a and b for a, b in zip(passed[0], passes, strict=True))} of {sum(passed[0])}",
        )
        for row, passes in zip(found.rows, passed, strict=True)
    ]
    columns = ("candidate", *_PRECISION, "layers", "passes", "of the first's")
    _table(f"Tasks passed, of {found.tasks}", columns, rows)


def expected(outlook: Sequence[Outlook], limit_bytes: int, workload: Workload) -> None:
    """Prints what the rows predict; quality where it was measured in the same run."""
    rows = [
        (
            one.candidate,
            *_words(one.precision),
            one.layers,
            "-" if one.quality_percent is None else f"{one.quality_percent:.2f}",
            "-" if one.agreement_percent is None else one.agreement_percent,
            one.rows or "none fits",
            "-" if one.tokens_per_second is None else f"{one.tokens_per_second:.0f}",
            "-" if one.itl_ms is None else f"{one.itl_ms:.0f}",
        )
        for one in outlook
    ]
    asked = f"{workload.isl} prompt and {workload.osl} new tokens"
    columns = (
        "candidate", *_PRECISION, "layers", "quality %", "agreement %", "batch", "tok/s", "ITL ms"
    )  # fmt: skip
    _table(f"Expected of {asked} in {limit_bytes >> 20} MiB", columns, rows)


def _words(of: CandidateQuality | OptionPasses | Timing | Precision) -> tuple[str, str]:
    return of.weight_dtype, of.kv_cache_dtype


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Plain text, so that a log file reads like a terminal; names to the left, figures to the right."""
    cells = [columns, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        first, *others = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first, *(cell.strip().rjust(len(cell)) for cell in others)]).rstrip())
