"""docs/tour.md and docs/how-to-add.md name files, tests and functions that there are."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from helios_cli.main import VERBS

ROOT = Path(__file__).parents[1]
FOLDERS = ("proto", "operator", "server", "cli", "client", "tests", "docs", "bench", "deploy")


@cache
def files() -> dict[str, Path]:
    """By the path from the root, with a slash before it."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix != ".pyc")
    return {f"/{path.relative_to(ROOT).as_posix()}": path for path in found if path.is_file()}


@cache
def code() -> str:
    sources = (path for path in files().values() if path.suffix == ".py" and path != Path(__file__))
    return "\n".join(path.read_text() for path in sources)


def missing(text: str) -> list[str]:
    """What a page names and nobody would find: a file (by its path's end), a test, a name of the code."""
    found = []
    for word in re.findall(r"`([^`\n]+)`", text):
        path, _, test = word.partition("::")
        if re.fullmatch(r"[\w/-]+\.(py|md|proto)", path):
            sources = [file.read_text() for name, file in files().items() if name.endswith(f"/{path}")]
            known = any(not test or f"def {test}(" in source for source in sources)
        elif re.fullmatch(r"\w+(\(\))?", word):
            known = re.search(rf"\b{word.removesuffix('()')}\b", code()) is not None
        else:
            continue
        if not known:
            found.append(word)
    links = (link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text))
    return [*found, *(link for link in links if not (ROOT / "docs" / link).exists())]


@pytest.mark.parametrize("page", ["tour.md", "how-to-add.md"])
def test_what_a_guide_names_is_there(page: str) -> None:
    assert missing((ROOT / "docs" / page).read_text()) == []


@pytest.mark.parametrize(
    "gone", ["`no_such_file.py`", "`test_wire.py::test_no_such`", "`_no_such_name`", "[x](no-such-page.md)"]
)
def test_what_is_not_there_is_missed(gone: str) -> None:
    assert len(missing(f"See {gone}.")) == 1


@pytest.mark.parametrize("page", ["README.md", "docs/own-model.md"])
def test_what_a_page_for_users_links_to_and_runs_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!http)([^)#]+)", text) + re.findall(r"\bexamples/[\w.-]+\.yaml", text)
    gone = {link for link in links if not ((folder / link).exists() or (ROOT / link).exists())}
    verbs = set(re.findall(r"^helios ([\w-]+)", text, re.MULTILINE))
    rows = re.findall(r"^\| `([\w,`. ]+)` \| ", text, re.MULTILINE)
    extras = {extra for row in rows for extra in re.findall(r"\w+", row)}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert (gone, verbs - VERBS.keys(), extras - known) == (set(), set(), set())
