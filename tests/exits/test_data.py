"""Text for training and measuring: splits that do not meet, prompts that do not change, sources read
clean."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from helios_server.errors import DataError
from helios_server.exits import data, fetch, sources
from helios_server.exits.data import domain_text, export, prompts


def test_no_module_is_in_both_splits() -> None:
    train = {name for name, _ in domain_text("code", "train")}
    heldout = {name for name, _ in domain_text("stdlib", "heldout")}
    assert not train & heldout
    assert len(train) > 2 * len(heldout) > 100


def test_prompts_are_held_out_and_stay_the_same() -> None:
    heldout = "\n".join(text for _, text in domain_text("code", "heldout"))
    train = "\n".join(text for _, text in domain_text("code", "train"))
    first = prompts("code", 50)
    assert first == prompts("code", 50)
    assert first != prompts("code", 50, seed=1)
    assert len(set(first)) == 50
    for prompt in first:
        assert all(line.strip() in heldout for line in prompt.splitlines())
        assert prompt not in train
        assert 18 <= len(prompt.split()) <= 36


def test_prompts_of_prose_are_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "It was a {} day and the sea lay quiet under the grey sky."
    text = " ".join(
        sentence.format(word) for word in ("fair", "cold", "long", "short", "dark", "wet", "dry", "hot")
    )
    domain = data.Domain(None, lambda: [("book", text)], "", "a book", "none", (20, 40))
    monkeypatch.setitem(data.DOMAINS, "prose", domain)
    for prompt in prompts("prose", 3):
        assert prompt.startswith("It was")
        assert prompt.endswith("sky.")
        assert 20 <= len(prompt.split()) <= 40
    with pytest.raises(DataError, match="'prose' has"):
        prompts("prose", 1000)


def test_a_domain_or_split_that_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match=r"domain: 'poetry'.*prose"):
        domain_text("poetry", "train")
    with pytest.raises(DataError, match="split"):
        domain_text("code", "test")
    with pytest.raises(DataError, match="measuring only"):
        domain_text("stdlib", "train")


def test_export_writes_one_file_a_source_and_nothing_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path))
    texts = [("a/b.py", "one"), ("c.py", "two")]
    domain = data.Domain(lambda: texts, lambda: texts, "", "", "none", (1, 2))
    monkeypatch.setitem(data.DOMAINS, "code", domain)
    folder = export("code", "train")
    (folder / "stale.txt").write_text("old")
    assert export("code", "train") == folder
    found = {file.name: file.read_text() for file in folder.iterdir()}
    assert found == {"a_b.py.txt": "one", "c.py.txt": "two"}


def r_character_vector(lines: list[str]) -> bytes:
    header = b"X\n" + struct.pack(">iiii", 3, 0x40201, 0x30500, 5) + b"UTF-8"
    body = b"".join(struct.pack(">ii", 0x40009, len(line.encode())) + line.encode() for line in lines)
    content = header + struct.pack(">ii", 16, len(lines)) + body
    return struct.pack(">i", len(content)) + zlib.compress(content)


def test_novels_are_read_from_r_and_unwrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = r_character_vector(["EMMA", "", "Emma Woodhouse,", "  handsome, naïve", "", "CHAPTER II", ""])
    database += r_character_vector(["PERSUASION", "", "Sir Walter Elliot"])
    file = tmp_path / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    file.parent.mkdir(parents=True)
    file.write_bytes(database)
    monkeypatch.setattr(sources, "debian_package", lambda name: tmp_path)
    assert sources.austen() == [
        ("Emma", "EMMA\n\nEmma Woodhouse, handsome, naïve\n\nCHAPTER II"),
        ("Persuasion", "PERSUASION\n\nSir Walter Elliot"),
    ]


def test_manual_pages_lose_their_markup() -> None:
    page = '.\\" comment\n.TH LS 1\n.SH BEZEICHNUNG\nls \\- Inhalte\n'
    page += '.TP\n\\fB\\-a\\fP, \\fI\\,alle\\/\\fP\n.B "nicht ignorieren"\n'
    assert sources._plain(page) == "BEZEICHNUNG\nls - Inhalte\n\n-a, alle\nnicht ignorieren"


def test_a_package_that_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_npm", lambda: ["false"])
    with pytest.raises(DataError, match=r"@stdlib/nothing@1: false cannot fetch it"):
        fetch.npm_package("@stdlib/nothing", "1")
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="need apt-get"):
        fetch.debian_package("nothing")
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and "nothing" in path.name]
