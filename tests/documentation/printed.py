"""What a page shows, beside what a command printed: the same but for numbers, ids and widths of columns; in
the entries of a log also for the precision, which depends on the processor."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ID = re.compile(r"\b[a-z]-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b\d\d:\d\d:\d\d\b")
_NUMBER = re.compile(r"\d[\d,]*(\.\d+)?")
_PRECISION = re.compile(r" in (?:auto|int8)/(?:auto|int8)(?=[:;, ]|$)")
_LEFT_OUT = re.compile(r" ?(?:…|\.\.\.)")
"""A page leaves something out."""


def plain(text: str) -> str:
    """Numbers are 0, ids and times have a name each, spaces and line ends are one space."""
    for pattern, name in ((_ID, "ID"), (_TIME, "TIME"), (_NUMBER, "0")):
        text = pattern.sub(name, text)
    return " ".join(re.sub(r"[─━-]{3,}", "---", text).split())


def pattern(shown: str) -> re.Pattern[str]:
    """Of what is printed, where a page shows this."""
    parts = (re.escape(part) for part in _LEFT_OUT.split(plain(shown)))
    return re.compile(".*?".join(parts))


def is_in(shown: str, printed: str) -> bool:
    """All of what is shown stands in what was printed, in one piece."""
    return pattern(shown).search(plain(printed)) is not None


def is_all(shown: str, printed: str) -> bool:
    """Nothing else was printed."""
    return pattern(shown).fullmatch(plain(printed)) is not None


def missing(shown: str, printed: str) -> list[str]:
    """The entries of a log that were not printed, in this order. An entry is a line; what is too long goes on
    in lines that begin with blanks."""
    rest, gone = plain(_PRECISION.sub("", printed)), []
    for entry in entries(shown):
        if found := pattern(_PRECISION.sub("", entry)).search(rest):
            rest = rest[found.end() :]
        else:
            gone.append(entry)
    return gone


def entries(shown: str) -> Iterator[str]:
    begun = ""
    for line in shown.splitlines():
        if begun and not (line[:1] == " " and not line.strip().startswith("next ")):
            yield begun
            begun = ""
        begun = f"{begun} {line.strip()}".strip()
    if begun:
        yield begun
