"""The glossary's tables, and the texts in which a word that they refuse must not stand.

Used by test_words.py. Texts are what users read: pages, the command's help and columns, messages, metrics'
help, comments of protos and of YAML, descriptions of the CRDs. Code's own names and docstrings are not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
PACKAGES = (
    *("cli/helios_cli", "client/helios_client", "operator/helios_operator", "server/helios_server"),
    *("proto/helios_contract", "deploy/helm", "bench/page", "examples"),
)


@dataclass(frozen=True)
class Text:
    file: Path
    line: int
    text: str


@dataclass(frozen=True)
class Refused:
    """`instead`: what the glossary says in its place. In capitals: a column's title, and that alone."""

    word: str
    instead: str

    def stands_in(self, text: str) -> bool:
        if self.word.isupper():
            return re.search(rf"\b{re.escape(self.word)}\b", text) is not None
        return re.search(rf"\b{re.escape(self.word)}s?\b", text, re.IGNORECASE) is not None


def tables(page: str) -> Iterator[list[str]]:
    """Rows of the tables whose last column is `not`, as cells."""
    is_ours = False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            is_ours = False
        elif cells[-1] == "not":
            is_ours = True
        elif is_ours and not set(line) <= set("|- "):
            yield cells


def refused(page: str) -> list[Refused]:
    return [
        Refused(word.strip(), cells[0])
        for cells in tables(page)
        for word in cells[-1].split(",")
        if word.strip()
    ]


# -- texts ---------------------------------------------------------------------------------------------------


def of_markdown(file: Path) -> Iterator[Text]:
    """Without fenced blocks, names of code and targets of links; the glossary without its column `not`."""
    fenced = False
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            said = line.rpartition("|")[0].rpartition("|")[0] if _is_glossary(file, line) else line
            yield Text(file, number, re.sub(r"`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", said))


def _is_glossary(file: Path, line: str) -> bool:
    return file.name == GLOSSARY.name and line.startswith("|")


def of_python(file: Path) -> Iterator[Text]:
    """Strings of several words, and titles of columns; no docstrings, no single names."""
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docs:
            continue
        if id(node) in parts or " " in node.value or re.fullmatch(r"[A-Z]{2}[A-Z/% ]*", node.value):
            yield Text(file, node.lineno, re.sub(r"`[^`]*`", " ", node.value))


def of_proto(file: Path) -> Iterator[Text]:
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if "//" in line:
            yield Text(file, number, line.partition("//")[2])


def of_yaml(file: Path) -> Iterator[Text]:
    """Comments and descriptions; values are the user's, or names."""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if said := re.search(r"(?:^|\s)#(.*)|\bdescription: (.*)", line):
            yield Text(file, number, said[1] or said[2] or "")


def of_html(file: Path) -> Iterator[Text]:
    """What stands between tags and is not the template's own."""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        yield Text(file, number, re.sub(r"<[^>]*>|\{[{%].*?[%}]\}", " ", line))


@cache
def texts() -> tuple[Text, ...]:
    """All that users read but what is fenced in a page, and the records in docs/decisions."""
    return tuple(_texts())


def _texts() -> Iterator[Text]:
    for page in PAGES:
        yield from of_markdown(page)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield from of_python(file)
    for file in sorted((ROOT / "proto").rglob("*.proto")):
        yield from of_proto(file)
    for folder in ("crds", "examples", "deploy/helm/helios"):
        for file in sorted((ROOT / folder).rglob("*.yaml")):
            yield from of_yaml(file)
    for file in (
        *ROOT.glob("cli/**/*.html"),
        *ROOT.glob("server/**/*.html"),
        *ROOT.glob("deploy/**/NOTES.txt"),
    ):
        yield from of_html(file)
