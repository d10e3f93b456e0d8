"""One writer per state folder: a lock that the operating system releases however its holder ends.

Taken by the runtime before it reads the store. Readers (`helios status` on a stopped deployment) need none,
since files are replaced whole.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from helios_operator.errors import StateError, StateLockedError

_NAME = "lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a state folder. `since` is RFC 3339; `command` what a person typed."""

    pid: int
    since: str
    command: str


class StateLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def acquire(cls, folder: Path, command: str) -> StateLock:
        """Takes the folder. StateLockedError says who has it, StateError why it cannot be used."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            problem = f"{folder} cannot be written ({error.strerror})"
            raise StateError("state", problem, "give a folder of your own with --state DIR") from None
        file = os.fdopen(descriptor, "r+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = _read(file)
            file.close()
            raise _locked(folder, held) from None
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        file.truncate(0)
        json.dump(asdict(Holder(os.getpid(), since, command)), file)
        file.flush()
        return cls(file)

    def release(self) -> None:
        self._file.close()


def holder(folder: Path) -> Holder | None:
    """Who holds the folder now; None when nobody does."""
    try:
        file = (folder / _NAME).open("r+", encoding="utf-8")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file) or Holder(0, "", "")
    return None


def _read(file: IO[str]) -> Holder | None:
    try:
        file.seek(0)
        return Holder(**json.load(file))
    except (ValueError, TypeError):
        return None  # the holder is between taking the lock and writing its name


def _locked(folder: Path, held: Holder | None) -> StateLockedError:
    who = f"process {held.pid} ({held.command}, since {held.since})" if held else "another process"
    return StateLockedError(
        "state", f"{folder} is in use by {who}", "stop it, or give another folder with --state DIR"
    )
