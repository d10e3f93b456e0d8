"""The result document `helios-result/1`: what a profiling run hands to whoever started it.

Called by `command.py`; read by the operator, as a file here and as a termination message in a cluster. A
termination message holds 4 KiB, so a quality document gives up per-prompt bits, never totals, until it fits.
Integers only.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helios_server.errors import HeliosError, InvalidRequest

SCHEMA = "helios-result/1"
LIMIT_BYTES = 4096

Document = dict[str, Any]


def encode(document: Document) -> bytes:
    """The document as compact JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def failure(kind: str, error: HeliosError) -> Document:
    """What a run that could not measure hands back."""
    parts = {"field": error.field, "problem": error.problem, "fix": error.fix}
    return {"schema": SCHEMA, "kind": kind, "error": {key: text[:600] for key, text in parts.items()}}


def fitted(document: Document, limit_bytes: int = LIMIT_BYTES) -> Document:
    """The document itself, or a copy with as few per-prompt bits dropped as make it fit.

    In this order: full depth's are given once, in the first row (every row of a backbone has the same); then
    those of the two best exits of each bundle are kept; of the best exit; of none. Best: fewest bits. Totals
    always stay; of a timing document the points go, never the fit.
    """
    steps: tuple[Callable[[Document], Document], ...] = (
        lambda whole: whole,
        _full_depth_once,
        lambda whole: _best_only(_full_depth_once(whole), best=2),
        lambda whole: _best_only(_full_depth_once(whole), best=1),
        _without_details,
    )
    for step in steps:
        candidate = step(document)
        if len(encode(candidate)) <= limit_bytes:
            return candidate
    raise InvalidRequest(
        "candidates",
        f"the result takes {len(encode(_without_details(document)))} bytes, {limit_bytes} can be returned",
        "Profile fewer candidates or exit layers at once",
    )


def write(path: Path, document: Document) -> None:
    """Writes the document so that a reader sees all of it or nothing.

    A termination message is a file that was mounted for the container: it cannot be replaced, only written,
    and is read when the process has ended.
    """
    try:
        if os.path.ismount(path) or (path.exists() and not os.access(path.parent, os.W_OK)):
            path.write_bytes(encode(document))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(encode(document))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise InvalidRequest(
            "result", f"cannot be written ({error})", "Give a path in a writable folder"
        ) from None


def _full_depth_once(document: Document) -> Document:
    copied = copy.deepcopy(document)
    for row in copied.get("rows", [])[1:]:
        row["exits"][-1].pop("promptMillibits", None)
    return copied


def _best_only(document: Document, best: int) -> Document:
    copied = copy.deepcopy(document)
    for row in copied.get("rows", []):
        below_full = sorted(row["exits"][:-1], key=lambda exit_: int(exit_["millibits"]))
        for exit_ in below_full[best:]:
            exit_.pop("promptMillibits", None)
    return copied


def _without_details(document: Document) -> Document:
    """Without what decisions can do without: per-prompt bits, and the points that a timing fit was made
    from."""
    copied = copy.deepcopy(document)
    copied.pop("promptBytes", None)
    copied.pop("points", None)
    for row in copied.get("rows", []):
        for exit_ in row["exits"]:
            exit_.pop("promptMillibits", None)
    return copied
