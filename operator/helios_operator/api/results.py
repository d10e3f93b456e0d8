"""What a profiling Job returned, as rows of the history table and as resolved candidates.

Called by whoever observes Jobs (a file on one machine, a termination message in a cluster). The document
comes from another process: anything that is not of the known shape is a ResultError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from helios_contract import results as contract
from helios_contract.codec import Malformed
from helios_contract.results import (
    CandidateQuality,
    Failure,
    Inspection,
    OptionPasses,
    Quality,
    Result,
    Tasks,
    Timing,
    Timings,
)
from helios_contract.serves import Precision
from helios_contract.tasks import passes

from helios_operator.api import identity
from helios_operator.api.rows import (
    QualityIdentity,
    QualityRow,
    RowPhase,
    TasksIdentity,
    TasksRow,
    TimingIdentity,
    TimingRow,
)
from helios_operator.api.types import Candidate
from helios_operator.errors import ResultError

R = TypeVar("R", Inspection, Timing, Quality, Tasks)


def read(text: str) -> Result:
    """ResultError when the text is no result document."""
    try:
        return contract.from_json(text)
    except Malformed as error:
        raise _unknown(f"is no result document ({error})") from None


def failure(result: Result) -> str | None:
    """ "field: problem; fix" when the Job could not measure; None when it did."""
    return f"{result.field}: {result.problem}; {result.fix}" if isinstance(result, Failure) else None


def left_out(result: Result) -> dict[Precision, str]:
    """Precisions that the Job was asked for and could not measure beside others, with the reason."""
    named = result.left_out if isinstance(result, Timings | Quality | Tasks) else ()
    return {Precision(each.weight_dtype, each.kv_cache_dtype): each.why for each in named}


def inspection(result: Result) -> Inspection:
    """By candidate name: what was resolved, and why the others were not."""
    return _as(Inspection, result)


def timing(result: Result, measured: TimingIdentity, completed: datetime) -> TimingRow:
    """The row of a Timing Job that was asked for one precision."""
    return _timing_row(_as(Timing, result), measured, completed)


def timings(
    result: Result, measured: Mapping[Precision, TimingIdentity], completed: datetime
) -> tuple[TimingRow, ...]:
    """The rows of a Timing Job, of as many as it measured of the precisions that it was asked for."""
    several = result.timings if isinstance(result, Timings) else (_as(Timing, result),)
    found = {Precision(each.weight_dtype, each.kv_cache_dtype): each for each in several}
    if strangers := ", ".join(str(precision) for precision in found.keys() - measured.keys()):
        raise _unknown(f"times {strangers}, not asked for")
    return tuple(_timing_row(found[p], of, completed) for p, of in measured.items() if p in found)


def _timing_row(found: Timing, measured: TimingIdentity, completed: datetime) -> TimingRow:
    if found.fit is None or found.memory is None:
        raise _unknown("is no timing (fit or memory is missing)")
    blank = TimingRow(identity.timing_name(measured), measured, RowPhase.COMPLETE, completed=completed)
    return replace(blank, **vars(found))


def quality(
    result: Result, candidates: Mapping[str, Candidate], completed: datetime
) -> tuple[QualityRow, ...]:
    """The rows of a Quality Job, one per candidate and precision. `candidates` by name, their revisions
    resolved."""
    found = _as(Quality, result)
    strangers = [row.candidate for row in found.rows if row.candidate not in candidates]
    if strangers:
        raise _unknown(f"measures {', '.join(strangers)}, not asked for")
    if not found.rows or not all(row.exits for row in found.rows):
        raise _unknown("is no quality measurement (rows or exits are missing)")
    rows = tuple(_quality_row(found, row, candidates[row.candidate], completed) for row in found.rows)
    return tuple(_with_full_depth_of(_first_of(row, rows), row) for row in rows)


def _first_of(row: QualityRow, rows: tuple[QualityRow, ...]) -> QualityRow:
    """In its precision."""
    return next(first for first in rows if first.identity.precision == row.identity.precision)


def tasks(
    result: Result, candidates: Mapping[str, Candidate], digest: str, completed: datetime
) -> tuple[TasksRow, ...]:
    """The rows of a Tasks Job, one per option. `candidates` by name, their revisions resolved; `digest`: of
    the tasks that were to be asked."""
    found = _as(Tasks, result)
    strangers = [row.candidate for row in found.rows if row.candidate not in candidates]
    if strangers:
        raise _unknown(f"asks {', '.join(strangers)}, not asked for")
    if not found.rows or found.tasks_digest != digest:
        raise _unknown("is of no option, or of other tasks")
    return tuple(_tasks_row(found, row, candidates[row.candidate], completed) for row in found.rows)


def _tasks_row(found: Tasks, row: OptionPasses, candidate: Candidate, completed: datetime) -> TasksRow:
    try:
        passes(row.passes, found.tasks)
    except ValueError as error:
        raise _unknown(str(error)) from None
    asked = TasksIdentity(
        model_uri=candidate.uri,
        revision=candidate.revision or "",
        exits_digest=row.exits_digest,
        layer_budget=row.layer_budget,
        tasks_digest=found.tasks_digest,
        weight_dtype=row.weight_dtype,
        kv_cache_dtype=row.kv_cache_dtype,
    )
    name, phase = identity.tasks_name(asked), RowPhase.COMPLETE
    return TasksRow(name, asked, phase, completed=completed, tasks=found.tasks, passes=row.passes)


def _quality_row(
    found: Quality, row: CandidateQuality, candidate: Candidate, completed: datetime
) -> QualityRow:
    measured = QualityIdentity(
        model_uri=candidate.uri,
        revision=candidate.revision or "",
        exits_digest=row.exits_digest,
        prompts_digest=found.prompts_digest,
        weight_dtype=row.weight_dtype,
        kv_cache_dtype=row.kv_cache_dtype,
    )
    return QualityRow(
        identity.quality_name(measured),
        measured,
        RowPhase.COMPLETE,
        completed=completed,
        exits=row.exits,
        prompts=found.prompts,
        tokens=found.tokens,
        bytes=found.bytes,
        prompt_bytes=found.prompt_bytes,
    )


def _with_full_depth_of(first: QualityRow, row: QualityRow) -> QualityRow:
    """Full depth's per-prompt bits are the same for every bundle of a backbone in one precision; a tight
    document gives them once."""
    full, given = row.exits[-1], first.exits[-1].prompt_millibits
    if full.prompt_millibits or not given:
        return row
    return replace(row, exits=(*row.exits[:-1], replace(full, prompt_millibits=given)))


def _as(kind: type[R], result: Result) -> R:
    if not isinstance(result, kind):
        raise _unknown(f"is no {kind.__name__.lower()}, but {type(result).__name__.lower()}")
    return result


def _unknown(problem: str) -> ResultError:
    return ResultError("result", problem, "run operator and server of the same release")
