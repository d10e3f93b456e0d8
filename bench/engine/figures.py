"""From seconds to figures: tokens a second, ratios of the same round, bits per byte, the roofline.

Pure. A round of a cell has two calls of each engine: `first`, one new token a row, which is the time of the
prompts, and `whole`, all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.engine.cells import Cell
from bench.engine.parts import KERNELS
from bench.report import Claim, claim

OURS = "helios"


@dataclass(frozen=True)
class Times:
    """Seconds."""

    first: float
    whole: float


@dataclass
class Measured:
    """Of one cell. rounds: times by contender, None where it failed; errors: why, by contender."""

    cell: Cell
    rounds: list[dict[str, Times | None]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> list[Times | None]:
        return [each.get(name) for each in self.rounds]


Speed = Callable[[Cell, Times], float]


def end_to_end(cell: Cell, times: Times) -> float:
    """New tokens a second, the prompts' time included."""
    return cell.batch * cell.new / times.whole


def prefill(cell: Cell, times: Times) -> float:
    """Tokens of prompts a second."""
    return cell.batch * cell.prompt / times.first


def decode(cell: Cell, times: Times) -> float:
    """New tokens a second after the first of each row."""
    return cell.batch * (cell.new - 1) / max(times.whole - times.first, 1e-9)


SPEEDS: Mapping[str, Speed] = {"decode": decode, "end-to-end": end_to_end, "prefill": prefill}


def speeds(measured: Sequence[Measured]) -> Iterator[Claim]:
    for one in measured:
        names = dict.fromkeys(name for each in one.rounds for name in each)
        for name in names:
            known = [times for times in one.of(name) if times]
            for kind, speed in SPEEDS.items():
                if known:
                    rates = [speed(one.cell, times) for times in known]
                    yield claim(f"{kind}-{one.cell.name}-{_word(name)}", rates, "tokens/s")


def ratios(measured: Sequence[Measured], bits: Mapping[str, int]) -> Iterator[Claim]:
    """Ours over the best other of its class, each round's by itself; both are the best by the median.

    bits: of a weight, by contender. One class is of 16 bits, which peers of 32 belong to, being no worse;
    the other one is of 8.
    """
    for one in measured:
        for label, members in (("16-bit", (16, 32)), ("8-bit", (8,))):
            names = [name for name, of_weight in bits.items() if of_weight in members]
            for kind, speed in SPEEDS.items():
                ours = best(one, [name for name in names if is_ours(name) and bits[name] <= 16], speed)
                other = best(one, [name for name in names if not is_ours(name)], speed)
                if not ours or not other:
                    continue
                pairs = zip(one.of(ours), one.of(other), strict=True)
                each = [speed(one.cell, a) / speed(one.cell, b) for a, b in pairs if a and b]
                if each:
                    pair = f"{_word(ours)}-over-{_word(other)}"
                    yield claim(f"{kind}-{one.cell.name}-{label}-{pair}", each, "ratio")


def best(one: Measured, names: Sequence[str], speed: Speed) -> str | None:
    """The fastest by the median of its rounds."""
    known = {name: [times for times in one.of(name) if times] for name in names}
    medians = {n: statistics.median(speed(one.cell, t) for t in times) for n, times in known.items() if times}
    return max(medians, key=lambda name: medians[name], default=None)


def is_ours(name: str) -> bool:
    return name.partition(":")[0] == OURS


def quality(bits: Mapping[str, Mapping[str, float]], reference: str) -> Iterator[Claim]:
    """Bits per byte by contender and domain, and the reference's over them in percent."""
    for name, by_domain in bits.items():
        for domain, value in by_domain.items():
            yield Claim(f"bits-per-byte-{domain}-{_word(name)}", *[round(value, 5)] * 3, "bits/byte")
            if known := bits.get(reference, {}).get(domain):
                percent = round(100 * known / value, 3)
                yield Claim(f"quality-{domain}-{_word(name)}", percent, percent, percent, "percent")


@dataclass(frozen=True)
class Reads:
    """What a decode step cannot do without reading. parameters: weights of the model, tied ones once;
    key_values: elements a token of context."""

    parameters: int
    key_values: int

    def bytes(self, cell: Cell, bits: int) -> float:
        """Of a step of this cell, in its middle; keys and values have 16 bits at the least."""
        context = cell.batch * (cell.prompt + cell.new / 2)
        return self.parameters * bits / 8 + context * self.key_values * max(bits, 16) / 8


def rooflines(
    measured: Sequence[Measured], bits: Mapping[str, int], reads: Reads, bandwidth: float
) -> Iterator[Claim]:
    """Decoding at batch 1 over what reading alone would allow. bandwidth: bytes a second."""
    for one in (each for each in measured if each.cell.batch == 1):
        for name, of_weight in bits.items():
            known = [times for times in one.of(name) if times]
            if known:
                most = bandwidth / reads.bytes(one.cell, of_weight)
                shares = [decode(one.cell, times) / most for times in known]
                yield claim(f"roofline-{one.cell.name}-{_word(name)}", shares, "share")


def outside_kernels(parts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Claim]:
    """What of a step is not a kernel. parts: time by contender, batch and part."""
    for name, by_batch in parts.items():
        for batch, spent in by_batch.items():
            inside = sum(spent.get(kernel, 0.0) for kernel in KERNELS)
            share = round(1 - inside / spent["step"], 4)
            yield Claim(f"outside-kernels-batch-{batch}-{_word(name)}", share, share, share, "share")


def bare(rates: Mapping[str, Mapping[str, float]]) -> Iterator[Claim]:
    """What products of one row read alone. rates: bytes a second by contender and place."""
    for name, by_place in rates.items():
        for place, rate in by_place.items():
            yield Claim(f"bare-products-{place}-{_word(name)}", *[round(rate / 1e9, 2)] * 3, "GB/s")


def _word(contender: str) -> str:
    """As a part of the name of a claim."""
    return contender.replace(":", "-")
