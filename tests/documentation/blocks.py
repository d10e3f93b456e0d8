"""The fenced blocks of README and of docs/, and who runs each: a comment in front of a block says so, which
readers do not see.

    <!-- test: tests/rpc/test_docs.py::test_the_example_streams -->   this test runs it
    <!-- test of the page: … -->   the same for every block of the page that has no comment of its own
    <!-- not run: needs kind and docker -->   nothing runs it, for this reason
    <!-- drawing -->   for the eye: nobody types it and nothing prints it

A test takes what names it by the fixture `documented`. `test_claims.py` holds that each block has a comment
and that each comment is true.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = {"sh", "shell", "bash", "console", "python", "yaml"}
"""Languages of what a reader copies."""
TEST, NOT_RUN, DRAWING = "test", "not run", "drawing"
_OF_THE_PAGE = "test of the page"
_MARK = re.compile(rf"<!-- ({TEST}|{_OF_THE_PAGE}|{NOT_RUN}): (\S.*) -->|<!-- ({DRAWING}) -->")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,}) *(\w*)")


@dataclass(frozen=True)
class Block:
    """`page`: from the root. `line`: of its fence, from 1. `kind`: TEST, NOT_RUN or DRAWING; "" where no
    comment stands before it. `by`: the test, or the reason."""

    page: str
    line: int
    language: str
    text: str
    kind: str = ""
    by: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def read(page: str, text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found: list[Block] = []
    kind, by, default = "", "", ""
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if fence := _FENCE.match(line):
            body = "".join(f"{each}\n" for each in _until(fence[1], lines))
            claim = (kind, by) if kind else (TEST, default) if default else ("", "")
            found.append(Block(page, number, fence[2], body, *claim))
        if mark := _MARK.fullmatch(line):
            if mark[1] == _OF_THE_PAGE:
                default = mark[2]
            else:
                kind, by = mark[1] or mark[3], mark[2] or ""
        elif line.strip():
            kind, by = "", ""
    return found


def _until(fence: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if re.fullmatch(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}\s*", line):
            return
        yield line


@cache
def blocks() -> tuple[Block, ...]:
    """Of all pages."""
    return tuple(
        block for page in PAGES for block in read(page.relative_to(ROOT).as_posix(), page.read_text())
    )


def of(test: str) -> list[Block]:
    """Those that name a test, `tests/FILE::FUNCTION`, page by page."""
    return [block for block in blocks() if (block.kind, block.by) == (TEST, test)]


def commands(text: str) -> list[str]:
    """A shell script's commands, one after the other, without comments and prompts: lines that a backslash or
    an open quote joins are one."""
    found, begun = [], ""
    for line in text.splitlines():
        begun += line if begun else line.removeprefix("$ ")
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # a quote is open
            begun += "\n"
            continue
        if words:
            found.append(_without_comment(begun).strip())
        begun = ""
    assert not begun, f"no command ends with {begun!r}"
    return found


def _without_comment(command: str) -> str:
    """Up to a `#` that stands at the beginning of a word and in no quotes."""
    for place in re.finditer(r"(^|\s)#", command):
        before = command[: place.start()]
        try:
            shlex.split(before)
        except ValueError:
            continue
        return before
    return command


def transcript(text: str) -> tuple[str, str]:
    """Of a block in which `$` stands before what is typed: that, and what follows it."""
    lines = text.splitlines()
    assert lines[0].startswith("$ "), text
    typed = 1
    while lines[typed - 1].endswith("\\"):
        typed += 1
    (command,) = commands("\n".join(lines[:typed]))
    return command, "\n".join(lines[typed:]).strip("\n")
