"""The table at the end, and the same as a document (`demo-result.json`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helios_operator.api.types import HistoryEntry, Served
from rich.table import Table

from examples.demo.act import Outcome
from examples.demo.phases import Phase


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row per phase; an act that begins from nothing begins at full depth."""
    shown = Table(title="What served what", title_justify="left", box=None, padding=(0, 2, 0, 0))
    words = ("traffic", "model", "precision")
    figures = ("batch", "reached", "tokens/s", "quality")
    for column in ("act", "traffic", "model", "layers", "precision", *figures):
        shown.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    for outcome in outcomes:
        for phase in outcome.phases:
            quality = "" if phase.quality_percent is None else f"{phase.quality_percent:.0f} %"
            batch, reached = str(phase.max_batch), str(phase.batch_reached)
            speed, act = f"{phase.tokens_per_second:.0f}", str(phase.act)
            served = phase.candidate, str(phase.layers), phase.precision
            shown.add_row(act, phase.traffic, *served, batch, reached, speed, quality)
        shown.add_section()
    return shown


def decisions(outcomes: Sequence[Outcome]) -> list[str]:
    """Why each phase began, with the numbers that were weighed; a reason is said once."""
    lines = [f"act {phase.act}, {phase.traffic}: {phase.decision}" for o in outcomes for phase in o.phases]
    return list(dict.fromkeys(lines))


def options(outcomes: Sequence[Outcome]) -> list[str]:
    """What was weighed of depth and precision, act by act."""
    return [f"act {number}, {line}" for number, o in enumerate(outcomes, 1) for line in o.options]


def document(outcomes: Sequence[Outcome], traffic: Sequence[str]) -> dict[str, Any]:
    """What `demo-result.json` holds."""
    streams = [stream for outcome in outcomes for stream in outcome.streams]
    return {
        "traffic": list(traffic),
        "phases": [_phase(phase) for outcome in outcomes for phase in outcome.phases],
        "selections": [_change(o.selection, act) for act, o in enumerate(outcomes, 1) if o.selection],
        "changes": [_change(change, act) for act, o in enumerate(outcomes, 1) for change in o.changes],
        "options": options(outcomes),
        "requests": {
            "ok": sum(not stream.error for stream in streams),
            "failed": sum(bool(stream.error) for stream in streams),
            "errors": sorted({stream.error for stream in streams if stream.error}),
        },
    }


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _phase(phase: Phase) -> dict[str, Any]:
    quality = phase.quality_percent
    return {
        "act": phase.act,
        "traffic": phase.traffic,
        "candidate": phase.candidate,
        "tokensPerSecond": round(phase.tokens_per_second, 1),
        "layers": phase.layers,
        "precision": phase.precision,
        "maxBatch": phase.max_batch,
        "batchReached": phase.batch_reached,
        "qualityPercent": None if quality is None else round(quality, 1),
        "requests": phase.requests,
        "decision": phase.decision,
    }


def _change(entry: HistoryEntry, act: int) -> dict[str, Any]:
    return {
        "act": act,
        "kind": entry.kind.value,
        "from": _served(entry.from_),
        "to": _served(entry.to),
        "reason": entry.reason,
        "message": entry.message,
        "result": entry.result,
        "atRequest": entry.at_request,
        "seconds": entry.seconds,
    }


def _served(served: Served | None) -> dict[str, Any] | None:
    if served is None:
        return None
    return {
        "candidate": served.candidate,
        "layerBudget": served.layer_budget,
        "precision": str(served.precision),
        "maxBatchSize": served.max_batch_size,
    }
