"""What the demo shows while it runs: what is waited for, what HELIOS said and did, and the text of one
stream.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from helios_operator.local.events import Record
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

_SAID = {"decision", "event"}
_WIDTH = 90


class Screen:
    """A terminal gets a live line with the text as it streams; a log file gets plain lines only."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.console = Console(file=file, highlight=False, soft_wrap=True)
        self._text = ""
        self._live: Live | None = None
        self._doing = ""
        self._since = time.monotonic()

    def headline(self, text: str) -> None:
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def text(self, delta: str) -> None:
        """The newest words of the stream that is shown."""
        self._text = (self._text + delta)[-400:]

    def record(self, record: Record) -> None:
        """The runtime's own words: decisions and events in full, pods and jobs when something is wrong
        with them.
        """
        if record.source in _SAID:
            self.console.print(f"  [cyan]{record.reason}[/cyan]  {escape(record.message)}")
        elif record.type == "Warning":
            self.console.print(f"  [yellow]{record.about} {record.reason}[/yellow]  {escape(record.message)}")

    @contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        if doing != self._doing:
            self._doing, self._since = doing, time.monotonic()
            if not self.console.is_terminal:
                self.say(f"… {doing}")
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._line, console=self.console, refresh_per_second=8, transient=True):
            yield

    def _line(self) -> Text:
        seconds = int(time.monotonic() - self._since)
        shown = " ".join(self._text.split())[-_WIDTH:]
        return Text.assemble((f"… {self._doing} ({seconds} s)  ", "dim"), (shown, "italic"))
