"""Human text by domain, split into what heads may be trained on and what they are measured on.

Called by the recipes of the built-in bundles, the demo and tests. A source is in one split only; the demo's
prompts come from sources that no built-in bundle was trained on.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helios_server.errors import DataError
from helios_server.exits import sources
from helios_server.exits.fetch import data_root
from helios_server.exits.sources import Texts

_ONE_IN = 5  # sources held out, by the hash of their names
_PASSAGES_A_SOURCE = 4  # before a source is used again
_NOVELS = ("Northanger Abbey", "Persuasion")  # the shorter ones: as much of them as of Moby Dick's chapters


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of text. train, heldout: read its sources, which the next two fields name; train None: for
    measuring only. licence: of the sources. words: least and most of one prompt. code: passages are lines,
    not sentences."""

    train: Callable[[], Texts] | None
    heldout: Callable[[], Texts]
    train_source: str
    heldout_source: str
    licence: str
    words: tuple[int, int]
    code: bool = False


def _hashed(read: Callable[[], Texts], heldout: bool) -> Callable[[], Texts]:
    """Every fifth source, by the hash of its name, is held out: the split survives additions and removals."""
    return lambda: [(name, text) for name, text in read() if (_bucket(name, _ONE_IN) == 0) == heldout]


def _bucket(name: str, buckets: int) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % buckets


def _prose(heldout: bool) -> Texts:
    """Two novels and a third of Moby Dick's chapters to train on; its other chapters to measure on."""
    chapters = [(name, text) for name, text in sources.moby_dick() if (_bucket(name, 3) != 0) == heldout]
    return chapters if heldout else [novel for novel in sources.austen() if novel[0] in _NOVELS] + chapters


DOMAINS = {
    "prose": Domain(
        train=lambda: _prose(False),
        heldout=lambda: _prose(True),
        train_source="Northanger Abbey, Persuasion and a third of the chapters of Moby Dick",
        heldout_source="the other chapters of Moby Dick",
        licence="public domain",
        words=(35, 65),
    ),
    "code": Domain(
        train=_hashed(sources.standard_library, False),
        heldout=sources.installed_packages,
        train_source="four of five modules of the CPython standard library",
        heldout_source=f"source of the Python packages {', '.join(sources.PACKAGES)}",
        licence="PSF-2.0",
        words=(18, 36),
        code=True,
    ),
    "stdlib": Domain(
        train=None,
        heldout=_hashed(sources.standard_library, True),
        train_source="",
        heldout_source="the fifth module of five of the CPython standard library",
        licence="PSF-2.0",
        words=(18, 36),
        code=True,
    ),
    "speech": Domain(
        train=_hashed(sources.speeches, False),
        heldout=_hashed(sources.speeches, True),
        train_source="four of five State of the Union addresses",
        heldout_source="every fifth State of the Union address",
        licence="public domain",
        words=(35, 65),
    ),
    "german": Domain(
        train=_hashed(sources.german_manuals, False),
        heldout=_hashed(sources.german_manuals, True),
        train_source="four of five German manual pages (manpages-de)",
        heldout_source="every fifth German manual page (manpages-de)",
        licence="GPL-3.0-or-later and the pages' own",
        words=(16, 34),
    ),
}


def domain_text(name: str, split: str) -> Texts:
    """(source, text) pairs of a domain. split: `train` or `heldout`."""
    domain = _domain(name)
    if split not in ("train", "heldout"):
        raise DataError("split", f"'{split}' is unknown", "Use train or heldout")
    read = domain.train if split == "train" else domain.heldout
    if read is None:
        raise DataError(name, "is for measuring only, it has no training split", "Use split heldout")
    return read()


def export(name: str, split: str) -> Path:
    """Writes a domain's texts as files, for `tune` and the like, and returns the folder."""
    folder = data_root() / "text" / name / split
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source, text in domain_text(name, split):
        file = folder / (re.sub(r"[^\w.-]+", "_", source) + ".txt")
        file.write_text(text, encoding="utf-8")
    return folder


def prompts(
    domain: str,
    n: int,
    words: tuple[int, int] | None = None,
    seed: int = 0,
    fits: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """n different passages from held-out sources, in an order that the seed decides.

    words: least and most of each passage; None: what makes 40 to 90 tokens, mostly. A line of code may be one
    word and thousands of tokens: what does not fit is passed over, and the others stay in their order.
    """
    spec = _domain(domain)
    least, most = words or spec.words
    split = _code_passages if spec.code else _prose_passages
    dice = random.Random(f"{domain} {seed}")
    texts = spec.heldout()
    dice.shuffle(texts)
    chosen: dict[str, None] = {}
    left: list[str] = []  # of the sources read so far, what was not chosen
    for _, text in texts:
        passages = list(dict.fromkeys(split(text, least, most)))
        dice.shuffle(passages)
        chosen.update(dict.fromkeys(filter(fits, passages[:_PASSAGES_A_SOURCE])))
        left += passages[_PASSAGES_A_SOURCE:]
        if len(chosen) >= n:
            break
    for passage in left:
        if len(chosen) >= n:
            break
        if fits(passage):
            chosen[passage] = None
    if len(chosen) < n:
        raise DataError("n", f"{n} prompts asked, '{domain}' has {len(chosen)}", "Ask for fewer")
    return list(chosen)[:n]


def _domain(name: str) -> Domain:
    if name not in DOMAINS:
        raise DataError("domain", f"'{name}' is unknown", f"Use one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def _prose_passages(text: str, least: int, most: int) -> Iterator[str]:
    """Whole sentences, one after the other, while they fit."""
    held: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = sentence.split()
        if held and len(held) + len(words) > most:
            if least <= len(held):
                yield " ".join(held)
            held = []
        held += words
        if len(held) > most:
            held = []


def _code_passages(text: str, least: int, most: int) -> Iterator[str]:
    """Whole lines of code from a statement on, while they fit; docstrings are prose and left out."""
    for code in re.split(r"(?:\"{3}|'{3})[\s\S]*?(?:\"{3}|'{3})", text):
        held: list[str] = []
        count = 0
        for line in [*code.splitlines(), None]:
            words = 0 if line is None else len(line.split())
            if held and (line is None or count + words > most):
                if least <= count and not _mostly_comment(held):
                    yield textwrap.dedent("\n".join(held)).rstrip()
                held, count = [], 0
            if line is not None and (held or re.match(r"\s*[\w@#]", line)):
                held.append(line)
                count += words


def _mostly_comment(lines: list[str]) -> bool:
    return 2 * sum(line.lstrip().startswith("#") for line in lines) > len(lines)


def main() -> None:
    """Fetches the text of every domain and writes it as files (`make data`)."""
    for name, domain in DOMAINS.items():
        for split in ("train", "heldout") if domain.train else ("heldout",):
            folder = export(name, split)
            print(f"{name} {split}: {len(list(folder.iterdir()))} sources in {folder}", flush=True)


if __name__ == "__main__":
    main()
