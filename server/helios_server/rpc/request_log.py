"""The request log: one line for each request that ended, and one for each audit; lengths and results, no
text.

Opened by `serve`, told by `conversation` and by `server`. The file is written by a thread of its own and is
bounded: when it is full it becomes FILE.1, in place of the one before. Nothing that goes wrong with it may
harm a request; it is said once.
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path

from helios_contract.request_log import AuditLine, Line, RequestLine, to_json
from helios_contract.telemetry import AuditRow

from helios_server.engine.request import FinishedEvent
from helios_server.errors import InvalidRequest

logger = logging.getLogger(__name__)
_Make = Callable[[], Line]
_Tell = Callable[[BaseException | None], None]

MOST_BYTES = 256 << 20
"""Of a file: about a million requests."""
_MOST_WAITING = 10_000
"""Lines for the thread; more are left out, so that a disk that hangs fills no memory."""


class RequestLog:
    """Used by the event loop only. boot_id: of the pod's process."""

    def __init__(self, path: Path, boot_id: str = "", most_bytes: int = MOST_BYTES) -> None:
        self.boot_id = boot_id
        self._path = path
        self._said = False
        self._audited: frozenset[int] = frozenset()
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
        self._closed = False
        self._file = _open(path, most_bytes, self._failed)
        self._writer = QueueListener(self._lines, self._file)
        self._writer.start()

    def finished(self, event: FinishedEvent) -> None:
        """A request ended, or its client left."""
        if event.ordinal:
            self._add(lambda: _line(event, self.boot_id))

    def audits(self, window: Iterable[AuditRow]) -> None:
        """The newest audits, some of which were there before."""
        rows = tuple(window)
        for row in rows:
            if row.request not in self._audited:
                self._add(partial(AuditLine.of, self.boot_id, row))
        self._audited = frozenset(row.request for row in rows)

    def close(self) -> None:
        """Returns when all lines are written; what comes later is left out."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        try:
            self._file.close()
        except OSError as error:
            self._failed(error)

    def _add(self, line: _Make) -> None:
        try:
            self._lines.put_nowait(logging.makeLogRecord({"msg": to_json(line())}))
        except Exception as error:
            self._failed(error)

    def _failed(self, error: BaseException | None) -> None:
        if not self._said:
            self._said = True
            why = "the disk does not keep up" if isinstance(error, queue.Full) else error
            logger.warning("request log %s: lines are left out (%s)", self._path, why)


class _File(RotatingFileHandler):
    """Tells what went wrong in place of printing a traceback."""

    failed: _Tell

    def handleError(self, record: logging.LogRecord) -> None:
        self.failed(sys.exc_info()[1])


def _open(path: Path, most_bytes: int, failed: _Tell) -> _File:
    try:
        file = _File(path, maxBytes=most_bytes, backupCount=1, encoding="utf-8")
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        raise InvalidRequest("request-log", problem, "Give a file in a folder that exists") from None
    file.failed = failed
    return file


def _line(event: FinishedEvent, boot_id: str) -> RequestLine:
    times = event.times
    served = event.spans[-1].served if event.spans else None
    line = RequestLine(
        arrived=round(time.time() - (time.monotonic() - times.arrived), 6),
        prompt_tokens=event.prompt_tokens,
        output_tokens=len(event.output_ids),
        boot_id=boot_id,
        request=event.ordinal,
        first_token_seconds=round(times.first_token - times.arrived, 6) if times.first_token else None,
        seconds=round(times.finished - times.arrived, 6),
        mean_confidence=round(event.mean_confidence, 6),
        breaches=event.breaches,
    )
    if served is None:
        return line
    return replace(
        line,
        candidate=served.candidate,
        layer_budget=served.depth,
        exits_digest=served.exits_digest,
        weight_dtype=served.weight_dtype,
        kv_cache_dtype=served.kv_cache_dtype,
    )
