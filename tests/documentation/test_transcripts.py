"""What pages show that a command prints, where it is computed: to the last digit."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from helios_cli.main import main

from tests.documentation import printed
from tests.documentation.blocks import ROOT, Block, commands, transcript


def test_capacity_prints_what_its_page_shows(
    documented: list[Block], capsys: pytest.CaptureFixture[str]
) -> None:
    for block in documented:
        command, shown = transcript(block.text)
        program, *words = shlex.split(command)
        assert (program, main(words)) == ("helios", 0)
        said = capsys.readouterr().out.strip("\n").splitlines()
        for line, expected in zip(said, shown.splitlines(), strict=True):
            whole, left_out, _ = expected.partition("...")  # a page goes on after what is as long as this
            assert line.startswith(whole) if left_out else line == whole, str(block)


def test_what_is_wrong_is_told_as_the_page_shows(
    documented: list[Block],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = documented
    line, below = block.lines
    obj = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    obj["spec"]["slo"]["percentile"] = 200
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(obj))
    monkeypatch.setenv("HELIOS_STATE", str(tmp_path / "state"))
    assert main(["up", str(tmp_path / "chat.yaml")]) == 2
    assert capsys.readouterr().err.splitlines() == [line]
    places = [place for place, mark in enumerate(below) if mark == "└"]
    assert [line[place - 1] for place in places] == [" "] * 3  # each points to the beginning of a part


def test_commands_of_a_shell_are_whole() -> None:
    assert transcript("$ helios x \\\n    --y\n\nA  1\n") == ("helios x     --y", "A  1")
    assert commands("helios x  # no more") == ["helios x"]


# -- how what is shown is compared ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "a  12 rows\nquality 95.5 % of t-96d26a9b7309",
        "a 1,200 rows quality 7 % of k-000000000000",
    ],
)
def test_numbers_ids_and_widths_are_aside(said: str) -> None:
    assert printed.is_all("a 3 rows  quality 1 % of k-0123456789ab", said)


@pytest.mark.parametrize("said", ["a 12 lines", "12 rows", "a 12 rows, and more"])
def test_words_are_not(said: str) -> None:
    assert not printed.is_all("a 3 rows", said)


def test_what_a_page_leaves_out_may_be_anything() -> None:
    assert printed.is_all("tasks 5: …, rows ...", "tasks 7: many of them, rows 3 and 4")
    assert not printed.is_in("tasks 5: …, lines", "tasks 7: many of them, rows 3 and 4")


def test_entries_of_a_log_are_looked_for_in_their_order() -> None:
    log = "10:00:00  a: B  c 1\n          next  helios why a\n10:00:01  a: D  e\n"
    assert (
        printed.missing("11:00:00  a: B\n          c 2\n          next  helios why a\n12:00:00 a: D e", log)
        == []
    )
    assert printed.missing("11:00:00  a: D  e\n11:00:00  a: B  c 1", log) == ["11:00:00  a: B  c 1"]
