"""Child processes: started in a group of their own, their output in a bounded log, stopped for certain.

Used by pods and jobs. It knows nothing of either: it starts, watches, tells the last words, ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from helios_operator.local import lifeline

_LOG_BYTES = 4 * 1024 * 1024
_TAIL_LINES = 40
_READ_BYTES = 64 * 1024
NICE = 10
"""Added to the parent's, where the system has no class, or gives none, for what only fills gaps."""


def helios_command(*arguments: str) -> list[str]:
    """The `helios` command of this installation, by the same interpreter."""
    return [sys.executable, "-m", "helios_cli", *arguments]


class BoundedLog:
    """Appends to a file; when it is full it becomes `NAME.1` (the former `.1` goes) and a new one begins."""

    def __init__(self, path: Path, limit: int = _LOG_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit = limit
        self._file = path.open("ab")

    def write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > self._limit:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")
        self._file.write(data)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _yield(pid: int) -> None:
    """Threads that it starts take after it; one that has ended already needs nothing.

    Whoever else wakes up preempts it at once. Niceness alone leaves it slices, and a pod's threads wait for
    each other at every barrier: one that is held up holds up all, and the gaps go to the job too.
    """
    with contextlib.suppress(ProcessLookupError):
        try:
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        except (AttributeError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)


class Process:
    """One running child. `last_words` is the line that best says why it ended."""

    def __init__(
        self, child: asyncio.subprocess.Process, log: BoundedLog, heard: Callable[[str], None]
    ) -> None:
        self._child = child
        self._heard = heard
        self._log = log
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader = asyncio.create_task(self._read(), name=f"log of {child.pid}")

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        heard: Callable[[str], None] = lambda _: None,
        yields: bool = False,
    ) -> Process:
        """Its own process group: a Ctrl-C in the terminal reaches the parent alone, which ends its children
        in order. `heard`: is told each line that it says. `yields`: to whoever else needs the processors."""
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, lifeline.PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            process_group=0,
        )
        if yields:
            _yield(child.pid)
        return cls(child, BoundedLog(log), heard)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.returncode

    @property
    def last_words(self) -> str:
        """The last line that names an error; without one, the last line of a child that ended by itself;
        how it ended when it said nothing, or was ended."""
        lines = [line for line in self._tail if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error") or "Error:" in line]
        ended = how_it_ended(self.exit_code)
        if self.exit_code is not None and self.exit_code < 0 and not errors:
            return ended
        said = (errors or lines or [""])[-1].strip()
        return f"{said} ({ended})" if said else ended

    async def wait(self) -> int:
        """Until it has ended and all it said is in the log."""
        code = await self._child.wait()
        await self._reader
        return code

    def terminate(self) -> None:
        """SIGTERM: a pod drains, a job stops."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> int:
        """SIGTERM, then SIGKILL when the grace is over."""
        self.terminate()
        try:
            return await asyncio.wait_for(asyncio.shield(self.wait()), grace_seconds)
        except TimeoutError:
            self.kill()
            return await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    async def _read(self) -> None:
        output = self._child.stdout
        if output is None:
            return
        rest = b""
        while data := await output.read(_READ_BYTES):
            with contextlib.suppress(OSError):  # a full disk must not block the child on its pipe
                self._log.write(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in (line.decode(errors="replace") for line in lines):
                self._tail.append(line)
                self._heard(line)
            rest = rest[-_READ_BYTES:]
        if rest:
            self._tail.append(rest.decode(errors="replace"))
        self._log.close()


def how_it_ended(code: int | None) -> str:
    """A sentence for an exit code, for want of a message."""
    if code is None:
        return "still running"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exited with {code}"
