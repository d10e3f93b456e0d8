"""What the measured rows predict for a workload, for people; decisions predict for themselves.

Called by `command.py`, shown by `report.py`. The laws stand in `helios_server.planning`; this asks them for
every legal depth in every precision, and puts beside it what quality was found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helios_contract.results import ExitQuality, Quality, Timing, Timings
from helios_contract.serves import REFERENCE, Precision

from helios_server.exits.head import BareHead
from helios_server.planning.memory import capacity
from helios_server.planning.timing import Workload, predict
from helios_server.profile.opened import OpenCandidate

FULL_DEPTH = "full depth"


@dataclass(frozen=True)
class Outlook:
    """One way to serve, saturated. candidate: whose exit it is, or `FULL_DEPTH`; quality_percent,
    agreement_percent: against full depth in the reference precision, None where that was not measured;
    rows: that fit, 0: not one; tokens_per_second, itl_ms: None without a row."""

    candidate: str
    layers: int
    precision: Precision
    quality_percent: float | None
    agreement_percent: int | None
    rows: int
    tokens_per_second: float | None
    itl_ms: float | None


def outlook(
    candidates: Sequence[OpenCandidate],
    timed: Timing | Timings,
    quality: Quality | None,
    limit_bytes: int,
    workload: Workload,
) -> tuple[Outlook, ...]:
    """Every exit of every candidate and, last, full depth; all of them in one precision after the other."""
    full = candidates[0].checkpoint.config.num_layers
    depths = [
        (opened.candidate.name, layer, opened.head_kind)
        for opened in candidates
        for layer in opened.exit_layers
    ]
    found = _by_depth(quality) if quality else {}
    whole = found.get((candidates[0].candidate.name, REFERENCE, full))
    expected = []
    for timing in timed.timings if isinstance(timed, Timings) else (timed,):
        precision = Precision(timing.weight_dtype, timing.kv_cache_dtype)
        for name, layers, kind in [*depths, (FULL_DEPTH, full, BareHead.kind)]:
            of_candidate = candidates[0].candidate.name if name == FULL_DEPTH else name
            exit_ = found.get((of_candidate, precision, layers))
            expected.append(
                Outlook(
                    name,
                    layers,
                    precision,
                    100 * whole.millibits / exit_.millibits if whole and exit_ else None,
                    exit_.agreement_percent if exit_ else None,
                    *_predicted(timing, layers, kind, limit_bytes, workload),
                )
            )
    return tuple(expected)


def _by_depth(quality: Quality) -> Mapping[tuple[str, Precision, int], ExitQuality]:
    return {
        (row.candidate, Precision(row.weight_dtype, row.kv_cache_dtype), exit_.layer): exit_
        for row in quality.rows
        for exit_ in row.exits
    }


def _predicted(
    timing: Timing, layers: int, kind: str, limit_bytes: int, workload: Workload
) -> tuple[int, float | None, float | None]:
    """Rows, tokens per second, milliseconds between tokens."""
    if timing.memory is None or timing.fit is None:
        return 0, None, None
    facts = timing.memory
    rows = capacity(
        facts,
        limit_bytes=limit_bytes,
        layers=layers,
        tokens_per_request=workload.isl + workload.osl,
        exit_bytes=timing.exit_bytes[kind],
        max_rows=facts.step_tokens,
    ).rows
    if not rows:
        return 0, None, None
    steady = predict(
        timing.fit,
        layers=layers,
        head_kind=kind,
        batch=rows,
        workload=workload,
        step_tokens=facts.step_tokens,
    )
    return rows, steady.tokens_per_second, steady.itl_ms
