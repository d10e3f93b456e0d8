"""One writer per state folder: a lock that the operating system releases however its holder ends.

Taken by the runtime before it reads the store. Readers (`helios status` on a stopped deployment) need none,
since files are replaced whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from helios_operator.errors import StateError, StateLockedError

_NAME = "lock"
_LOOKS, _LOOK_SECONDS = 10, 0.05


@dataclass(frozen=True)
class Holder:
    """Who holds a state folder. `since` is RFC 3339; `command` what a person typed; `begun`: what the folder
    says of its deployments is of this run, and not what an earlier one left."""

    pid: int
    since: str
    command: str
    begun: bool = False


class StateLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, file: IO[str], holder: Holder) -> None:
        self._file = file
        self._holder = holder
        self._write(holder)

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
        if not _taken(file):
            held = _read(file)
            file.close()
            raise _locked(folder, held)
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(file, Holder(os.getpid(), since, command))

    def begin(self) -> None:
        """Whoever reads the folder may believe it from now on."""
        if not self._holder.begun:
            with contextlib.suppress(OSError):  # a full disk: then after a later pass
                self._write(replace(self._holder, begun=True))

    def release(self) -> None:
        """Leaves nothing that the next holder could be taken for."""
        with contextlib.suppress(OSError), self._file:
            self._file.truncate(0)

    def _write(self, holder: Holder) -> None:
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(holder), self._file)
        self._file.flush()
        self._holder = holder


def _taken(file: IO[str]) -> bool:
    """Whoever looks for a holder has the lock for a moment, too: one look is no answer."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOOK_SECONDS)
    return False


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
