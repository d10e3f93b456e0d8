"""What a profiling Job returned, `helios-result/1`, as rows of the history table and as resolved candidates.

Called by whoever observes Jobs (a file on one machine, a termination message in a cluster). The document
comes from another process: anything that is not of the known shape is a ResultError, never a KeyError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from helios_operator.api import identity, parse
from helios_operator.api.rows import QualityIdentity, QualityRow, RowPhase, TimingIdentity, TimingRow
from helios_operator.api.types import Candidate, Resolved
from helios_operator.errors import ResultError

SCHEMA = "helios-result/1"

Document = Mapping[str, Any]


def read(text: str) -> Document:
    """The document itself, its schema checked. ResultError when the text is something else."""
    try:
        document = json.loads(text)
        known = document["schema"] == SCHEMA
    except (ValueError, TypeError, KeyError):
        raise _unknown("is not a result document") from None
    if not known:
        raise _unknown(f"has schema {document['schema']!r}, {SCHEMA} is known")
    return dict(document)


def failure(document: Document) -> str | None:
    """ "field: problem; fix" when the Job could not measure; None when it did."""
    error = document.get("error")
    return (
        f"{error.get('field')}: {error.get('problem')}; {error.get('fix')}"
        if isinstance(error, dict)
        else None
    )


def inspection(document: Document) -> tuple[dict[str, Resolved], dict[str, str]]:
    """By candidate name: what was resolved, and why the others were not."""
    try:
        answers = document["resolved"].items()
        resolved = {name: parse.resolved(answer) for name, answer in answers if "error" not in answer}
        return resolved, {name: str(answer["error"]) for name, answer in answers if "error" in answer}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown(f"is no inspection ({error!r})") from None


def timing(document: Document, measured: TimingIdentity, completed: datetime) -> TimingRow:
    """The row of a Timing Job."""
    blank = TimingRow(identity.timing_name(measured), measured, RowPhase.COMPLETE, completed=completed)
    try:
        row = parse.with_timing(blank, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown(f"is no timing ({error!r})") from None
    if row.fit is None or row.memory is None:
        raise _unknown("is no timing (fit or memory is missing)")
    return row


def quality(
    document: Document, candidates: Mapping[str, Candidate], completed: datetime
) -> tuple[QualityRow, ...]:
    """The rows of a Quality Job, one per candidate. `candidates` by name, their revisions resolved."""
    try:
        rows = tuple(_quality_row(document, row, candidates, completed) for row in document["rows"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _unknown(f"is no quality measurement ({error!r})") from None
    return tuple(_with_full_depth_of(rows[0], row) for row in rows)


def _quality_row(
    document: Document, row: Document, candidates: Mapping[str, Candidate], completed: datetime
) -> QualityRow:
    candidate = candidates[row["candidate"]]
    measured = QualityIdentity(
        model_uri=candidate.uri,
        revision=candidate.revision or "",
        exits_digest=row["exitsDigest"],
        prompts_digest=document["promptsDigest"],
    )
    blank = QualityRow(identity.quality_name(measured), measured, RowPhase.COMPLETE, completed=completed)
    totals = {key: document[key] for key in ("prompts", "tokens", "bytes")}
    return parse.with_quality(
        blank, {**totals, "promptBytes": document.get("promptBytes", ()), "exits": row["exits"]}
    )


def _with_full_depth_of(first: QualityRow, row: QualityRow) -> QualityRow:
    """Full depth's per-prompt bits are the same for every bundle of a backbone; a tight document gives them
    once."""
    full, given = row.exits[-1], first.exits[-1].prompt_millibits
    if full.prompt_millibits or not given:
        return row
    return replace(row, exits=(*row.exits[:-1], replace(full, prompt_millibits=given)))


def _unknown(problem: str) -> ResultError:
    return ResultError("result", problem, "run operator and server of the same release")
