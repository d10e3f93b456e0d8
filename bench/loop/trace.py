"""Requests as they come: seeded, in a calm and a burst of each kind of text, one kind after another.

Drawn once and replayed by every arm. Arrivals are Poisson's; the rates are those of the machine, so that a
calm leaves the reference room and a burst leaves no arm any. `helios simulate` draws traces of its own, which
have no text. It must not know what serves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

MIXED = "mixed"
"""A kind: of all the others, by lot."""
KINDS = ("prose", "code", MIXED)
Texts = Mapping[str, Sequence[str]]
"""By domain."""


@dataclass(frozen=True)
class Arrival:
    """at: seconds after the trace began; kind: of the traffic at the time; domain: of the text."""

    number: int
    at: float
    kind: str
    is_burst: bool
    domain: str
    text: str


@dataclass(frozen=True)
class Shape:
    """calm, burst: requests a second; burst_share: of a kind's requests, which come after its others."""

    requests: int
    kinds: Sequence[str]
    calm: float
    burst: float
    seed: int
    burst_share: float = 0.5

    @property
    def is_steady(self) -> bool:
        """Whether the texts stay of one kind."""
        return len(self.kinds) == 1


def sliced(shape: Shape, turns: int) -> list[Shape]:
    """So many of each kind, one kind after another: each as large as `shape`, and with a seed of its own."""
    kinds = [kind for kind in shape.kinds for _ in range(turns)]
    return [replace(shape, kinds=(kind,), seed=shape.seed + place) for place, kind in enumerate(kinds)]


def drawn(shape: Shape, texts: Texts) -> list[Arrival]:
    """texts: by domain; each is used as often as every other of its domain, or once more."""
    draw, sources = random.Random(shape.seed), {domain: cycle(read) for domain, read in texts.items()}
    at, arrivals = 0.0, list[Arrival]()
    for number, (kind, is_burst) in enumerate(_planned(shape)):
        at += draw.expovariate(shape.burst if is_burst else shape.calm)
        domain = draw.choice(list(texts)) if kind == MIXED else kind
        arrivals.append(Arrival(number, at, kind, is_burst, domain, next(sources[domain])))
    return arrivals


def _planned(shape: Shape) -> Iterator[tuple[str, bool]]:
    for place, kind in enumerate(shape.kinds):
        count = shape.requests // len(shape.kinds) + (place < shape.requests % len(shape.kinds))
        in_burst = round(count * shape.burst_share)
        yield from [(kind, False)] * (count - in_burst) + [(kind, True)] * in_burst


def together(texts: Texts, count: int) -> list[Arrival]:
    """So many at one moment, of all domains in turn."""
    sources = {domain: cycle(read) for domain, read in texts.items()}
    domains = cycle(texts)
    return [
        Arrival(number, 0.0, MIXED, True, domain, next(sources[domain]))
        for number, domain in zip(range(count), domains, strict=False)
    ]
