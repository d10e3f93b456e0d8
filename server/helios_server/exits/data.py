"""Human text by domain, split into what heads may be trained on and what they are measured on.

Called by the recipes of the built-in bundles, the demo and tests. A source is in one split only; the demo's prompts
come from sources that no built-in bundle was trained on.
"""

from __future__ import annotations

import hashlib
import random
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helios_server.errors import DataError
from helios_server.exits import sources
from helios_server.exits.fetch import data_root
from helios_server.exits.sources import Texts

_HELD_OUT_ONE_IN = 5


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of text. train, heldout: read its sources, which the next two fields name; train None: for measuring
    only. licence: of the sources. words: least and most of one prompt. code: passages are lines, not sentences."""

    train: Callable[[], Texts] | None
    heldout: Callable[[], Texts]
    train_source: str
    heldout_source: str
    licence: str
    words: tuple[int, int]
    code: bool = False


def _hashed(read: Callable[[], Texts], heldout: bool) -> Callable[[], Texts]:
    """Every fifth source, by the hash of its name, is held out: the split survives additions and removals."""

    def texts() -> Texts:
        return [(name, text) for name, text in read() if (_bucket(name) == 0) == heldout]

    return texts


def _bucket(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % _HELD_OUT_ONE_IN


DOMAINS = {
    "prose": Domain(
        train=sources.austen,
        heldout=sources.moby_dick,
        train_source="Jane Austen's six novels",
        heldout_source="Moby Dick",
        licence="public domain",
        words=(35, 65),
    ),
    "code": Domain(
        train=_hashed(sources.standard_library, False),
        heldout=_hashed(sources.standard_library, True),
        train_source="four of five modules of the CPython standard library",
        heldout_source="every fifth module of the CPython standard library",
        licence="PSF-2.0",
        words=(14, 28),
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
    "packages": Domain(
        train=None,
        heldout=sources.installed_packages,
        train_source="",
        heldout_source="source of the Python packages installed beside HELIOS",
        licence="each its own",
        words=(14, 28),
        code=True,
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
    folder.mkdir(parents=True, exist_ok=True)
    for source, text in domain_text(name, split):
        file = folder / (re.sub(r"[^\w.-]+", "_", source) + ".txt")
        file.write_text(text, encoding="utf-8")
    return folder


def prompts(domain: str, n: int, words: tuple[int, int] | None = None, seed: int = 0) -> list[str]:
    """n different passages from held-out sources, in an order that the seed decides. words: least and most of each."""
    spec = _domain(domain)
    least, most = words or spec.words
    split = _code_passages if spec.code else _prose_passages
    passages = [passage for _, text in spec.heldout() for passage in split(text, least, most)]
    passages = list(dict.fromkeys(passages))
    if n > len(passages):
        raise DataError("n", f"{n} prompts asked, '{domain}' has {len(passages)}", "Ask for fewer")
    return random.Random(f"{domain} {seed}").sample(passages, n)


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
    """The head of each function or class, in whole lines, dedented."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if not re.match(r"\s*(async def|def|class) ", line):
            continue
        stop, count = start, 0
        while stop < len(lines) and count + len(lines[stop].split()) <= most:
            count += len(lines[stop].split())
            stop += 1
        if count >= least:
            yield textwrap.dedent("\n".join(lines[start:stop])).rstrip()
