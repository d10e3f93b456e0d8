"""What happened, as a person reads it: events, decisions and what became of pods and Jobs, newest last.

Written by the runtime, kept in the state folder, printed by `helios up` and `helios why`. It is a log for
people: no decision reads it.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from helios_operator.local.files import write_atomically

_KEPT = 400
NORMAL, WARNING = "Normal", "Warning"


@dataclass(frozen=True)
class Record:
    """One line. `source`: decision | event | pod | job | runtime; `about`: the action,
    condition, pod or job; `time` is RFC 3339; `numbers` are the decision's, with the unit in the name."""

    time: str
    deployment: str
    source: str
    about: str
    type: str
    reason: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)


Listener = Callable[[Record], None]


class Echoes:
    """Knows an event that only repeats a decision just said: for whoever prints records in order."""

    def __init__(self) -> None:
        self._said: deque[str] = deque(maxlen=8)

    def is_echo(self, record: Record) -> bool:
        if record.source == "decision" and record.message:
            self._said.append(record.message)
        return record.source == "event" and any(record.message.endswith(said) for said in self._said)


class EventLog:
    """The records of one deployment. A line that says what the line before it said is not written again."""

    def __init__(self, path: Path, deployment: str, listener: Listener | None = None) -> None:
        self._path = path
        self._deployment = deployment
        self._listener = listener
        self._records: deque[Record] = deque(read(path), maxlen=_KEPT)
        self._rewrite()

    def records(self) -> list[Record]:
        return list(self._records)

    def add(
        self,
        source: str,
        about: str,
        reason: str,
        message: str,
        *,
        type: str = NORMAL,
        numbers: dict[str, float] | None = None,
    ) -> None:
        record = self._record(source, about, reason, message, type, numbers)
        if self._records and _says(self._records[-1]) == _says(record):
            return
        self._records.append(record)
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(record))  # a full disk must not keep a pass from its work
        if self._listener is not None:
            self._listener(record)

    def pass_on(self, source: str, about: str, reason: str, message: str) -> None:
        """Said to who listens now, and not kept: what the next word makes worthless."""
        if self._listener is not None:
            self._listener(self._record(source, about, reason, message, NORMAL, None))

    def _record(
        self,
        source: str,
        about: str,
        reason: str,
        message: str,
        type: str,
        numbers: dict[str, float] | None,
    ) -> Record:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Record(time, self._deployment, source, about, type, reason, message, numbers or {})

    def _rewrite(self) -> None:
        """Bounds the file: once a start is enough, and mends a line that a kill cut short."""
        write_atomically(self._path, "".join(_line(record) for record in self._records))


def read(path: Path) -> list[Record]:
    """The newest records of a log; a line cut short by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-_KEPT:]:
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return records


def _line(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def _says(record: Record) -> tuple[str, str, str, str]:
    return record.source, record.about, record.reason, record.message
