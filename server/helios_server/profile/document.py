"""The result of a profiling run (`helios_contract.results`): made to fit, and handed to whoever started it.

Called by `command.py`; read by the operator, as a file here and as a termination message in a cluster. A
termination message holds 4 KiB, so a quality document gives up per-prompt bits, never totals, until it fits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from helios_contract import results
from helios_contract.results import CandidateQuality, Failure, Quality, Result, Timing, Timings
from helios_contract.serves import REFERENCE, Precision

from helios_server.errors import HeliosError, InvalidRequest

LIMIT_BYTES = 4096


def failure(kind: str, error: HeliosError) -> Failure:
    """What a run that could not measure hands back."""
    return Failure(kind, *(text[:600] for text in (error.field, error.problem, error.fix)))


def fitted(result: Result, limit_bytes: int = LIMIT_BYTES) -> Result:
    """The result itself, or a copy with as few per-prompt bits dropped as make its document fit.

    In this order: full depth's are given once in each precision, in its first row (every row of a backbone
    has the same); then those of the two best exits of each row are kept; of the best exit; the same of the
    reference precision's rows alone; of full depth alone; of none. Best: fewest bits. Totals always stay; of
    a timing the points go, never the fit.
    """
    size = 0
    for candidate in _ever_thinner(result):
        size = len(encode(candidate))
        if size <= limit_bytes:
            return candidate
    raise InvalidRequest(
        "candidates",
        f"the result takes {size} bytes, {limit_bytes} can be returned",
        "Profile fewer candidates, exit layers or precisions at once",
    )


def encode(result: Result) -> bytes:
    """The document as compact JSON."""
    return results.to_json(result).encode()


def write(path: Path, result: Result) -> None:
    """Writes the document so that a reader sees all of it or nothing.

    A termination message is a file that was mounted for the container: it cannot be replaced, only written,
    and is read when the process has ended.
    """
    try:
        if os.path.ismount(path) or (path.exists() and not os.access(path.parent, os.W_OK)):
            path.write_bytes(encode(result))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(encode(result))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise InvalidRequest(
            "result", f"cannot be written ({error})", "Give a path in a writable folder"
        ) from None


def _ever_thinner(whole: Result) -> Iterator[Result]:
    yield whole
    if isinstance(whole, Timing):
        yield replace(whole, points=())
    if isinstance(whole, Timings):
        yield replace(whole, timings=tuple(replace(timing, points=()) for timing in whole.timings))
    if isinstance(whole, Quality):
        once = _with_full_depth_once(whole.rows)
        yield replace(whole, rows=once)
        for of_reference, of_others in ((2, 2), (1, 1), (2, 0), (1, 0), (0, 0)):
            yield replace(whole, rows=tuple(_with_best(of_reference, of_others, row) for row in once))
        bare = tuple(_without_bits(row, {exit_.layer for exit_ in row.exits}) for row in whole.rows)
        yield replace(whole, prompt_bytes=(), rows=bare)


def _with_full_depth_once(rows: Sequence[CandidateQuality]) -> tuple[CandidateQuality, ...]:
    """In the first row of each precision."""
    first = {_precision(row): row for row in reversed(rows)}
    return tuple(
        row if row is first[_precision(row)] else _without_bits(row, {row.exits[-1].layer}) for row in rows
    )


def _with_best(of_reference: int, of_others: int, row: CandidateQuality) -> CandidateQuality:
    best = of_reference if _precision(row) == REFERENCE else of_others
    return _without_bits(row, _all_but(best, row))


def _precision(row: CandidateQuality) -> Precision:
    return Precision(row.weight_dtype, row.kv_cache_dtype)


def _all_but(best: int, row: CandidateQuality) -> set[int]:
    """Layers below full depth, without so many of the best."""
    ranked = sorted(row.exits[:-1], key=lambda exit_: exit_.millibits)
    return {exit_.layer for exit_ in ranked[best:]}


def _without_bits(row: CandidateQuality, layers: Collection[int]) -> CandidateQuality:
    """Without the per-prompt bits of these layers."""
    thinner = (replace(each, prompt_millibits=()) if each.layer in layers else each for each in row.exits)
    return replace(row, exits=tuple(thinner))
