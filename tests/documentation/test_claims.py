"""Every block of README and docs is claimed: run by one test, which there is and which takes it, or not run
for a reason that is said here."""

from __future__ import annotations

import argparse
import ast
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from typing import Any

import pytest
from helios_cli.main import VERBS, main

from tests.documentation.blocks import (
    COMMANDS,
    DRAWING,
    NOT_RUN,
    PAGES,
    ROOT,
    TEST,
    Block,
    blocks,
    commands,
    read,
)

SHELL = COMMANDS - {"python", "yaml"}
FIXTURE = "documented"
"""By which a test takes what names it (tests/conftest.py)."""


@cache
def takers() -> frozenset[str]:
    """Every test that takes blocks, `tests/FILE::FUNCTION`: by the fixture, or its file asks for them by its
    name."""
    found = set()
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        source, name = file.read_text(), file.relative_to(ROOT).as_posix()
        asked = set(re.findall(rf'\bof\(\s*"{re.escape(name)}::(\w+)"', source))
        if FIXTURE not in source and not asked:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                arguments = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
                if FIXTURE in arguments or node.name in asked:
                    found.add(f"{name}::{node.name}")
    return frozenset(found)


def faults(found: tuple[Block, ...] | list[Block], known: frozenset[str]) -> list[str]:
    """Blocks that nobody claims, that a test claims which there is not, or that are no drawing."""
    said = []
    for block in found:
        if not block.kind:
            said.append(f"{block}: nobody runs it; say who, as tests/documentation/blocks.py has it")
        elif block.kind == TEST and block.by not in known:
            said.append(f"{block}: no test {block.by} takes `{FIXTURE}`")
        elif block.kind == DRAWING and block.language in COMMANDS:
            said.append(f"{block}: {block.language} is no drawing; run it, or say why it is not run")
    return said


def test_every_block_is_claimed() -> None:
    assert faults(blocks(), takers()) == []


def test_every_test_that_takes_blocks_has_some() -> None:
    assert takers() - {block.by for block in blocks() if block.kind == TEST} == set()


@pytest.mark.parametrize("block", [each for each in blocks() if each.kind == NOT_RUN], ids=str)
def test_it_is_not_run(block: Block) -> None:
    """One line each in the summary of the tests."""
    pytest.skip(f"{block} is not run: {block.by}")


PAGE = """
Words.
<!-- test: tests/a.py::test_a -->

```sh
helios up x.yaml  # it lasts
```
More words.
```python
print("```")
```
<!-- drawing -->
````
```sh
inside
```
````
<!-- drawing -->
~~~yaml
a: b
~~~
<!-- not run: no GPU -->
```sh
make gpu
```
"""


def test_blocks_are_read_as_they_are_claimed() -> None:
    found = read("p.md", PAGE)
    assert [(each.line, each.language, each.kind, each.by) for each in found] == [
        (5, "sh", TEST, "tests/a.py::test_a"),
        (9, "python", "", ""),
        (13, "", DRAWING, ""),
        (19, "yaml", DRAWING, ""),
        (23, "sh", NOT_RUN, "no GPU"),
    ]
    assert found[2].text == "```sh\ninside\n```\n"


def test_what_nobody_claims_is_a_fault() -> None:
    found = read("p.md", PAGE)
    said = faults(found, frozenset())
    assert [line.partition(":")[2].partition(":")[0] for line in said] == ["5", "9", "19"]
    assert [
        line.partition(":")[2].partition(":")[0] for line in faults(found, frozenset({"tests/a.py::test_a"}))
    ] == [
        "9",
        "19",
    ]
    assert faults(read("p.md", "<!-- test of the page: tests/a.py::t -->\n```sh\nls\n```\n"), frozenset())


def test_commands_are_told_apart() -> None:
    script = "# first\n$ a --b 'c # d' \\\n   e   # f\nX=1 g \"h\ni\"\n\nj#k\n"
    assert commands(script) == ["a --b 'c # d'    e", 'X=1 g "h\ni"', "j#k"]


def indented() -> Iterator[str]:
    """Commands in blocks that Markdown makes of indented lines, which carry no comment."""
    words = r"(?:\$ )?(?:helios|kubectl|helm|pip|make|curl|python3?|docker) "
    for page in PAGES:
        text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield from (
            f"{page.name}: {line}" for line in re.findall(rf"^(?: {{4,}}|\t){words}.*$", text, re.MULTILINE)
        )


def test_no_command_is_shown_without_a_fence() -> None:
    assert list(indented()) == []


# -- what they ask for is there, whether or not they are run -------------------------------------------------


def helios_commands() -> list[tuple[Block, list[str]]]:
    """Every `helios` command of every block, in words."""
    found = []
    for block in blocks():
        if block.language in SHELL or not block.language:
            for line in _typed(block):
                words = shlex.split(line.partition(" > ")[0])
                if "helios" in words[:2]:
                    found.append((block, words[words.index("helios") + 1 :]))
    return found


def _typed(block: Block) -> list[str]:
    """Without heredocs, and without what is printed."""
    text = re.sub(r"<<(\w+)\n.*?^\1$", "", block.text, flags=re.MULTILINE | re.DOTALL)
    if not block.language:
        joined = re.sub(r"\\\n", " ", text)
        text = "\n".join(line for line in joined.splitlines() if re.match(r"(\$ )?(helios|echo)\b", line))
        text = re.sub(r"^(?:\$ )?echo .*? \| ", "", text, flags=re.MULTILINE)
    text = re.sub(r"\$(\w+|\([^)]*\))", "x", text)
    return [line for line in commands(text) if re.match(r"(?:\w+=\S+ |kubectl )?helios ", line)]


class Understood(Exception):
    """The verb's parser took all of it."""


@pytest.fixture
def only_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str]:
    """What a command says of its arguments; nothing is done. "" where they are understood."""
    parse = argparse.ArgumentParser.parse_args

    def read_only(self: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> Any:
        options = parse(self, arguments, namespace)
        if self.prog.endswith(" bench"):
            return options  # the bench reads what follows its name
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read_only)
    monkeypatch.setattr(sys, "argv", ["helios"])
    monkeypatch.setattr(sys, "path", [*sys.path])

    def say(words: list[str]) -> str:
        with redirect_stderr(io.StringIO()) as told, redirect_stdout(told):
            try:
                main(words)
            except Understood:
                return ""
            except SystemExit:
                pass
        return told.getvalue() or f"{words} was carried out"

    return say


def test_every_helios_command_of_the_pages_is_understood(only_read: Callable[[list[str]], str]) -> None:
    found = helios_commands()
    assert {words[0] for _, words in found} >= {
        "up",
        "generate",
        "capacity",
        "serve",
        "profile",
        "tune",
        "bench",
    }
    assert {words[0] for _, words in found} <= VERBS.keys()
    assert [f"{block}: {said}" for block, words in found if (said := only_read(words))] == []


def test_a_command_that_is_not_understood_is_named(only_read: Callable[[list[str]], str]) -> None:
    assert "unrecognized arguments: --fast" in only_read(["up", "x.yaml", "--fast"])
    assert "is not a verb" in only_read(["fly"])


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {
        name
        for block in blocks()
        if block.language in SHELL
        for name in re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE)
    }
    assert asked >= {"demo", "check", "test"}
    assert asked <= targets
