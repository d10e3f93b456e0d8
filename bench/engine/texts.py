"""What engines are given: random prompts to time, and held-out text to score.

A random prompt shares nothing with another one, so that no cache helps; all engines get the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from helios_server.exits.data import prompts as passages
from helios_server.models.tokenizer import Tokenizer

from bench.engine.cells import Cell

DOMAINS = {"prose": "prose", "code": "stdlib"}
"""Kinds of text, and the sources of each (`helios_server.exits.data`)."""
_SPECIAL = 256
"""Ids under this one may be control tokens or single bytes."""


def prompts(cell: Cell, round_number: int, call: str, vocabulary: int) -> list[list[int]]:
    """`cell.batch` rows of `cell.prompt` ids. call: of the two in a round."""
    dice = random.Random(f"{cell.name} {round_number} {call}")
    least = min(_SPECIAL, vocabulary // 2)
    return [[dice.randrange(least, vocabulary) for _ in range(cell.prompt)] for _ in range(cell.batch)]


@dataclass(frozen=True)
class Text:
    """windows: of ids; bytes: of all tokens but the first of each, in UTF-8."""

    windows: Sequence[Sequence[int]]
    bytes: int


def text(domain: str, tokenizer: Tokenizer, windows: int, tokens: int) -> Text:
    """Held-out passages, one after another, in windows of so many tokens."""
    read = passages(DOMAINS[domain], 6 * windows * -(-tokens // 192), seed=11)
    ids = tokenizer.encode("\n\n".join(read))
    cut = [ids[first : first + tokens] for first in range(0, windows * tokens, tokens)]
    if len(cut[-1]) < tokens:
        raise ValueError(f"{domain}: {len(ids)} tokens are not {windows} windows of {tokens}")
    return Text(cut, sum(tokenizer.bytes_of(window[1:]) for window in cut))
