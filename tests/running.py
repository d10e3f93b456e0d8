"""A command that lasts, its output in a file: waited for by its words, ended as a user ends it."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    """output: what it prints, on both streams; patience: seconds of a wait, until it is given up."""

    process: subprocess.Popen[bytes]
    output: Path
    patience: float = 240.0

    @property
    def text(self) -> str:
        return self.output.read_text()

    def until(self, words: str, timeout: float | None = None) -> str:
        """What it printed, when these are among it. timeout: seconds, in place of its patience."""
        end = time.monotonic() + (timeout or self.patience)
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, f"no {words!r} in:\n{self.text}"
            time.sleep(0.05)
        return self.text

    def interrupt(self) -> int:
        """As Ctrl-C does. Its status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(self.patience)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
