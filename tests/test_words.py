"""docs/glossary.md is kept: what it refuses stands in no page, message, help, column, description or comment
that users read. The check of terms and that of spelling see what they are to see."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import words
from tests.words import Refused, Text

REFUSED = words.refused(words.GLOSSARY.read_text())
WORDS = [each.word for each in REFUSED]
PAGE = """
| word | what it is | not |
| --- | --- | --- |
| lamp | gives `light` | lantern, LANTERNS |
| wick | burns | |

| other | table |
| --- | --- |
| a | lantern |

| say | not |
| --- | --- |
| see | behold |
"""


def test_no_text_says_what_the_glossary_refuses() -> None:
    found = [
        f"{text.file.relative_to(words.ROOT)}:{text.line}: say {each.instead}, not {each.word}"
        for text in words.texts()
        for each in REFUSED
        if each.stands_in(text.text)
    ]
    assert found == []


def test_a_word_stands_once_in_the_glossary() -> None:
    named = Counter(cells[0] for cells in words.tables(words.GLOSSARY.read_text()))
    assert [word for word, count in Counter([*named, *WORDS]).items() if count > 1] == []
    assert [word for word, count in named.items() if count > 1] == []


def test_the_tables_of_a_page_are_read() -> None:
    assert words.refused(PAGE) == [
        Refused("lantern", "lamp"),
        Refused("LANTERNS", "lamp"),
        Refused("behold", "see"),
    ]
    assert [cells[0] for cells in words.tables(PAGE)] == ["lamp", "wick", "see"]


@pytest.mark.parametrize("word", WORDS)
def test_each_refused_word_is_seen(word: str, tmp_path: Path) -> None:
    """In a page, a message and a comment; in any case, alone or as many; not within another word."""
    each = next(each for each in REFUSED if each.word == word)
    page, module, proto = tmp_path / "a.md", tmp_path / "a.py", tmp_path / "a.proto"
    page.write_text(f"# A page\n\n- It is ({word}), so.\n")
    module.write_text(f'raise Error("field", f"the {{name}} has {word} here")\n')
    proto.write_text(f"uint32 x = 1;  // {word}: what it is\n")
    for read, file in ((words.of_markdown, page), (words.of_python, module), (words.of_proto, proto)):
        assert any(each.stands_in(text.text) for text in read(file)), file.name
    assert not each.stands_in(f"x{word}x")
    if not word.isupper():
        assert each.stands_in(f"{word.capitalize()} it is")
        assert each.stands_in(f"two {word}s")


SOURCES: dict[str, tuple[Callable[[Path], Iterator[Text]], str, list[str]]] = {
    "page.md": (
        words.of_markdown,
        "the lamp, [a lamp](lantern.md) and `lantern`\n```\nlantern\n```\nthe end\n",
        ["the lamp, [a lamp  and  ", "the end"],
    ),
    "glossary.md": (words.of_markdown, "| lamp | gives light | lantern |\n", ["| lamp | gives light "]),
    "code.py": (
        words.of_python,
        '"""A docstring of it."""\nlantern = {"lantern": f"no {lantern} here"}\ntitles = ("LAMP", "Lamp")\n',
        ["LAMP", "no ", " here"],
    ),
    "api.proto": (words.of_proto, "// A lamp.\nbool lantern = 1;  // it burns\n", [" A lamp.", " it burns"]),
    "crd.yaml": (
        words.of_yaml,
        "# A lamp.\nlantern: lantern\nx: {type: string, description: 'It burns.'}\ny: a#b  # why\n",
        [" A lamp.", "'It burns.'}", " why"],
    ),
    "report.html": (words.of_html, '<p class="lantern">{{ lantern }} burns</p>\n', ["   burns "]),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_read_of_a_file_is_what_users_read(name: str, tmp_path: Path) -> None:
    read, content, expected = SOURCES[name]
    file = tmp_path / name
    file.write_text(content)
    assert [text.text for text in read(file)] == expected


def test_texts_of_every_kind_are_read() -> None:
    kinds = Counter(text.file.suffix for text in words.texts() if text.text.strip())
    assert all(kinds[suffix] > 9 for suffix in (".md", ".py", ".proto", ".yaml", ".html", ".txt")), kinds


# -- spelling, which `make lint` checks ----------------------------------------------------------------------


def misspelt(file: Path) -> list[str]:
    """By the project's own settings: words that typos would have otherwise."""
    command = [Path(sys.executable).parent / "typos", "--config", words.ROOT / "pyproject.toml"]
    done = subprocess.run([*command, "--format", "brief", file], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if done.stdout else 0), done.stderr
    return [line.split("`")[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["a.md", "a.py", "a.proto", "a.yaml", "a.html", "Makefile"])
def test_a_misspelt_word_is_seen(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text("# It was recieved by teh pod\n")
    assert misspelt(file) == ["recieved", "teh"]
    file.write_text("# It was received by the pod\n")
    assert misspelt(file) == []


def test_pages_are_in_british_spelling_and_code_in_its_own(tmp_path: Path) -> None:
    page, module = tmp_path / "a.md", tmp_path / "a.py"
    page.write_text("A color of the `optimizationType` [there](color.md).\n\n```\ncolor\n```\n")
    module.write_text("color = optimize(normalized)\n")
    assert (misspelt(page), misspelt(module)) == (["color"], [])
