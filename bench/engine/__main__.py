"""This engine and others on the same prompts, taking turns in one run: speed, quality, and what bounds it.

`helios bench engine`, or `python -m bench.engine`. Each engine runs in a process of its own, peers in
environments that are installed in the cache at the first run (docs/engine.md, "Beside other engines"). A
round of a cell (a shape at a batch) gives every engine random prompts, the same for all, twice: once for one
new token a row, once for all of them. Another engine begins each round. Claims: tokens a second, end to end,
of the prompts, and of decoding; ours over the best peer of its class, round by round (median, least,
greatest); bits per byte on held-out text, by each engine's own arithmetic; shares of the read bandwidth.

It refuses to measure on a busy machine. It stops starting rounds after --minutes, and names the cells that it
left out.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer

from bench.engine import figures, quiet, texts
from bench.engine.cells import Cell, Schedule
from bench.engine.contender import Contender, Failed
from bench.engine.figures import Measured, Times
from bench.engine.peers import PEERS
from bench.report import Claim, arguments, publish

_REFERENCE = "transformers:float32"
"""Whose bits are a hundred percent."""
_SETTLE_SECONDS = 0.3
"""Between two engines: threads of the one before may spin that long."""
_BANDWIDTH_TIMES = 10
_BARE_BLOCKS = 32
"""Of 4 Mi weights, which no cache holds."""
_WARM_TOKENS = 4096
"""Of the prompts of a cell: one with more is not run once before it is timed."""


def main() -> None:
    options = _options()
    seen = quiet.insist(options.threads, options.busy)
    model = Path(options.model) if options.model else ensure_smollm2(progress=_say)
    bench = Bench(model, options)
    try:
        claims = bench.run()
        bench.figures |= {"quietBefore": seen, "quietAfter": quiet.look(options.threads)}
    finally:
        bench.stop()
    publish(options.output, bench.figures, claims, ("torch", "transformers"))


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    known = ", ".join(f"{peer}:{variant}" for peer, each in PEERS.items() for variant in each.variants)
    add(
        "--peers", nargs="+", default=[], metavar="NAME[:VARIANT]", help=f"of {known} (default: most of them)"
    )
    add("--batches", type=int, nargs="+", default=[1, 8, 32, 64], help="rows at once (default: 1 8 32 64)")
    add("--shapes", type=_shape, nargs="+", default=[(64, 48), (512, 128)], metavar="PROMPT/NEW",
        help="tokens of a row (default: 64/48 512/128)")  # fmt: skip
    add("--rounds", type=int, default=5, help="of each cell, at most (default: 5)")
    add("--minutes", type=float, default=10.0, help="for timed rounds (default: 10)")
    add("--threads", type=int, default=2, help="of every engine (default: 2)")
    add("--isa", choices=("native", "avx2"), default="native", help="hold every engine to an instruction set")
    add("--model", metavar="FOLDER", help="a Llama checkpoint (default: SmolLM2-135M-Instruct)")
    add("--busy", action="store_true", help="measure although others use this machine")
    add("--quick", action="store_true", help="batch 1 and 8, 16 tokens, one round: does everything start?")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.shapes, options.rounds = [1, 8], [(32, 16)], 1
    try:
        options.contenders = contenders(options.peers, options.isa)
    except ValueError as error:
        parser.error(str(error))
    return options


def _shape(word: str) -> tuple[int, int]:
    prompt, _, new = word.partition("/")
    shape = int(prompt), int(new)
    if shape[0] < 1 or shape[1] < 2:
        raise ValueError("a prompt has a token or more, and two or more follow")
    return shape


def contenders(names: Sequence[str], isa: str = "native") -> list[Contender]:
    """Ours and the peers that are named, peer or peer:variant. Raises ValueError for what there is not."""
    chosen: dict[str, Contender] = {}
    for name in names or PEERS:
        peer_name, _, variant = name.partition(":")
        peer = PEERS.get(peer_name)
        if peer is None or (variant and variant not in peer.variants):
            raise ValueError(f"argument --peers: there is no '{name}'")
        usual = [each for each, about in peer.variants.items() if about.default]
        for each in [variant] if variant else usual:
            module = f"bench.engine.peers.{peer_name}"
            chosen[f"{peer_name}:{each}"] = Contender(peer_name, each, peer, isa, module)
    return list(chosen.values())


class Bench:
    """One run. figures: what it found, as far as it came."""

    def __init__(self, model: Path, options: Namespace) -> None:
        checkpoint = Checkpoint.open(model)
        self._model = model
        self._config = checkpoint.config
        self._recipe = checkpoint.fingerprint
        self._tokenizer = Tokenizer.open(model)
        self._options = options
        self._contenders: list[Contender] = options.contenders
        self._cells = [Cell(*shape, batch) for shape in options.shapes for batch in options.batches]
        self.figures: dict[str, Any] = {
            "model": model.name,
            "threads": options.threads,
            "isa": options.isa,
            "processor": _instruction_sets(),
        }

    def run(self) -> list[Claim]:
        self._start(self._contenders)
        bits = self._qualities()
        bandwidth = self._bandwidth()
        measured = self._speeds()
        parts, bare = self._parts(), self._bare()
        weights = {each.name: each.variant.bits for each in self._contenders}
        self.figures |= {
            "contenders": {each.name: _about(each) for each in self._contenders},
            "cells": [_told(one) for one in measured],
            "bitsPerByte": bits,
            "bandwidthBytesPerSecond": bandwidth and round(bandwidth),
            "millisecondsOfAStep": parts,
            "bareProductsBytesPerSecond": bare,
        }
        held = {each.name: each.variant.bits for each in self._contenders if each.held}
        claims = [*figures.ratios(measured, held), *figures.quality(bits, _REFERENCE)]
        if bandwidth:
            reads = _reads(self._config, self._model)
            claims += figures.rooflines(measured, weights, reads, bandwidth)
            claims.append(Claim("read-bandwidth", *[round(bandwidth / 1e9, 2)] * 3, "GB/s"))
        return [*claims, *figures.outside_kernels(parts), *figures.bare(bare), *figures.speeds(measured)]

    def stop(self) -> None:
        for contender in self._contenders:
            contender.stop()

    # -- what is measured ------------------------------------------------------------------------------------

    def _start(self, those: Sequence[Contender]) -> None:
        rows = max(cell.batch for cell in self._cells)
        tokens = max(max(cell.prompt + cell.new for cell in self._cells), self._window + 1)
        for contender in those:
            _say(f"{contender.name}: starting")
            contender.start(self._model, self._recipe, self._options.threads, rows, tokens)
            if why := contender.errors.get("start"):
                _say(f"{contender.name}: {why}")

    @property
    def _window(self) -> int:
        return 32 if self._options.quick else 160

    def _qualities(self) -> dict[str, dict[str, float]]:
        """Bits per byte by contender and domain."""
        windows = 1 if self._options.quick else 6
        given = {d: texts.text(d, self._tokenizer, windows, self._window) for d in texts.DOMAINS}
        found: dict[str, dict[str, float]] = {}
        scored = list(self._contenders)
        if all(each.name != _REFERENCE for each in scored):
            [reference] = contenders([_REFERENCE])
            self._start([reference])
            scored.append(reference)
        for contender in (each for each in scored if each.open):
            _say(f"{contender.name}: scoring")
            try:
                bits = {domain: contender.score(text.windows) / text.bytes for domain, text in given.items()}
                found[contender.name] = {domain: round(value, 6) for domain, value in bits.items()}
            except Failed as error:
                contender.errors["score"] = str(error)
        for contender in (each for each in scored if each not in self._contenders):
            contender.stop()
        self.figures["scored"] = {
            domain: {"windows": windows, "tokens": self._window, "bytes": text.bytes}
            for domain, text in given.items()
        }
        return found

    def _bandwidth(self) -> float | None:
        """Bytes a second."""
        for contender in (each for each in self._ours() if each.open):
            told = {"do": "bandwidth", "threads": self._options.threads, "times": _BANDWIDTH_TIMES}
            return float(contender.ask(told))
        return None

    def _speeds(self) -> list[Measured]:
        schedule = Schedule(self._cells, self._options.rounds, 60 * self._options.minutes)
        measured = {cell: Measured(cell) for cell in self._cells}
        while (cell := schedule.next()) and any(each.open for each in self._contenders):
            began = time.monotonic()
            number = schedule.done(cell)
            _say(f"{cell.name}: round {number + 1}")
            self._round(measured[cell], number)
            schedule.took(cell, time.monotonic() - began)
        self.figures["leftOut"] = [left.name for left in schedule.left_out()]
        return [measured[cell] for cell in sorted(self._cells)]

    def _round(self, measured: Measured, number: int) -> None:
        """Every engine once; another one begins each time."""
        for contender in (
            each for each in self._contenders if not each.open and not each.errors.get("start")
        ):
            measured.errors.setdefault(contender.name, "its process had ended")
        running = [each for each in self._contenders if each.open and each.name not in measured.errors]
        found: dict[str, Times | None] = {}
        for contender in running[number % len(running) :] + running[: number % len(running)]:
            time.sleep(_SETTLE_SECONDS)
            try:
                if number == 0:
                    self._warm(contender, measured.cell)
                found[contender.name] = self._times(contender, measured.cell, number)
            except Failed as error:
                found[contender.name] = None
                measured.errors[contender.name] = str(error)
                _say(f"{contender.name}: {error}")
        measured.rounds.append(found)

    def _warm(self, contender: Contender, cell: Cell) -> None:
        """What an engine does at the first such call only is no figure of it."""
        if cell.batch * cell.prompt <= _WARM_TOKENS:
            contender.generate(self._prompts(cell, -1, "warm"), 2)

    def _times(self, contender: Contender, cell: Cell, number: int) -> Times:
        first, whole = (self._prompts(cell, number, call) for call in ("first", "whole"))
        return Times(contender.generate(first, 1), contender.generate(whole, cell.new))

    def _prompts(self, cell: Cell, number: int, call: str) -> list[list[int]]:
        return texts.prompts(cell, number, call, self._config.vocab_size)

    def _parts(self) -> dict[str, dict[str, dict[str, float]]]:
        """Where our steps' time goes, in milliseconds, by contender and batch."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        prompt, new = self._options.shapes[0]
        for contender in (each for each in self._ours() if each.open):
            for batch in self._options.batches:
                cell = Cell(prompt, new, batch)
                told = {"do": "parts", "prompts": self._prompts(cell, -1, "parts"), "new": new}
                try:
                    seconds = contender.ask(told)
                except Failed as error:
                    contender.errors[f"parts at batch {batch}"] = str(error)
                    continue
                milliseconds = {part: round(1000 * value, 3) for part, value in seconds.items()}
                found.setdefault(contender.name, {})[str(batch)] = milliseconds
        return found

    def _bare(self) -> dict[str, dict[str, float]]:
        """How fast our products of one row read weights, in bytes a second, by contender and place."""
        found: dict[str, dict[str, float]] = {}
        for contender in (each for each in self._ours() if each.open):
            try:
                rates = contender.ask({"do": "bare", "blocks": 1 if self._options.quick else _BARE_BLOCKS})
            except Failed as error:
                contender.errors["bare products"] = str(error)
                continue
            found[contender.name] = {place: float(round(rate)) for place, rate in rates.items()}
        return found

    def _ours(self) -> Iterator[Contender]:
        return (each for each in self._contenders if figures.is_ours(each.name))


# -- what is told --------------------------------------------------------------------------------------------


def _about(contender: Contender) -> dict[str, Any]:
    return {
        "title": contender.peer.title,
        "bitsOfAWeight": contender.variant.bits,
        "numerics": contender.numerics,
        "heldToIsa": contender.held,
        "isa": contender.isa_of,
        "versions": contender.versions,
        "errors": contender.errors,
    }


def _told(one: Measured) -> dict[str, Any]:
    seconds = [
        {name: times and [round(times.first, 5), round(times.whole, 5)] for name, times in each.items()}
        for each in one.rounds
    ]
    return asdict(one.cell) | {"secondsFirstAndWhole": seconds, "errors": one.errors}


def _reads(config: ModelConfig, model: Path) -> figures.Reads:
    """A tied embedding is read once a step, as the LM head; an embedding of its own is hardly read."""
    parameters = sum(_elements(file) for file in model.glob("*.safetensors"))
    if not config.tied_embeddings:
        parameters -= config.vocab_size * config.hidden_size
    return figures.Reads(parameters, config.num_layers * 2 * config.kv_size)


def _elements(file: Path) -> int:
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    shapes = [about["shape"] for name, about in header.items() if name != "__metadata__"]
    total = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _instruction_sets() -> list[str]:
    """Those that engines choose by."""
    file = Path("/proc/cpuinfo")
    flags = (
        next((line for line in file.read_text().splitlines() if line.startswith("flags")), "")
        if file.exists()
        else ""
    )
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
    return [name for name in known if name in flags.split()]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
