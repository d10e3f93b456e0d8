"""What a person sees of a profiling run: progress on stderr, and the result document as tables or as JSON on
stdout.

Called by `command.py`. The tables show the document and nothing else, so that both forms always agree.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from helios_server.profile.document import Document


class Progress:
    """Lines on stderr, each with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, message: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {message}", file=sys.stderr, flush=True)


def show(document: Document, output: str) -> None:
    """Prints the document on stdout; output: json | table."""
    if output == "json":
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    tables = {"inspect": _inspect, "timing": _timing, "quality": _quality}
    tables[document["kind"]](document)


def _inspect(document: Document) -> None:
    rows = []
    for name, found in document["resolved"].items():
        if "error" in found:
            rows.append((name, "", "", "", found["error"]))
            continue
        exits = ", ".join(str(layer) for layer in found["exitLayers"]) or "none"
        detail = (
            f"{found['headKind']} heads {found['exitsDigest'][:19]}" if found["exitsDigest"] else "own head"
        )
        rows.append((name, found["revision"][:12], found["numLayers"], exits, detail))
    _table("Candidates", ("candidate", "revision", "layers", "exits", "heads"), rows)


def _quality(document: Document) -> None:
    rows = []
    for row in document["rows"]:
        full = row["exits"][-1]
        for exit_ in row["exits"]:
            rows.append((
                row["candidate"],
                exit_["layer"],
                f"{exit_['millibits'] / 1000 / document['bytes']:.3f}",
                f"{100 * full['millibits'] / exit_['millibits']:.1f}",
                exit_["agreementPercent"],
                exit_["firstAgreesPercent"],
                f"{exit_['meanConfidenceMilli'] / 1000:.2f}",
                f"{exit_['eceMilli'] / 1000:.3f}",
            ))  # fmt: skip
    title = f"Quality on {document['prompts']} prompts, {document['tokens']} tokens"
    columns = (
        "candidate", "layers", "bits/byte", "quality %", "agreement %", "first agrees %", "confidence", "ECE",
    )  # fmt: skip
    _table(title, columns, rows)


def _timing(document: Document) -> None:
    rows = [
        (
            point["headKind"],
            point["layerBudget"],
            point["rows"],
            point["sampled"],
            point["kvTokens"],
            f"{point['stepP50Us'] / 1000:.2f}",
            f"{point['stepP95Us'] / 1000:.2f}",
        )
        for point in document["points"]
    ]
    title = f"Step times; the fit is {document['fit']['errorPercent']} % off"
    _table(title, ("head", "layers", "new tokens", "sampled", "context", "p50 ms", "p95 ms"), rows)
    energy = document.get("energy")
    if energy:
        joules = [
            (point["layerBudget"], point["rows"], point["joulesPerMegatoken"]) for point in energy["points"]
        ]
        _table(f"Energy ({energy['source']})", ("layers", "rows", "J per million tokens"), joules)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Plain text, so that a log file reads like a terminal; names to the left, figures to the right."""
    cells = [columns, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        first, *others = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first, *(cell.strip().rjust(len(cell)) for cell in others)]).rstrip())
