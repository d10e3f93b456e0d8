"""Offered load, layer budget and precision together: what they come to in throughput, response time and
quality.

`python -m bench.joint`: SmolLM2-135M with bundle `general`, in the memory in which full depth as published
holds --rows rows. What that answers when more requests wait than it has rows is load 1; every combination of
--depths and --precisions then gets the same --loads of it from an open loop (requests at moments that a
Poisson process draws, whoever has been answered) at the gRPC door of a pod of its own, --rounds times in
random order. Claims: tokens a second, p99 of the response time, median and p99 of the time to the first
token, as medians of the rounds with least and greatest; quality in per cent of full depth as published,
teacher-forced on unseen prose and code, with its 95 per cent interval over the windows; calls refused, and
failed in all. A p99 of a short load is its slowest call, or the one before it.

`python -m bench.joint --output json` is a useful run of some nine minutes on two quiet cores; --short takes
two: two depths, two loads, one round. --model takes another checkpoint with its own heads.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helios_contract.serves import REFERENCE, Precision
from helios_server.models.store import ensure_smollm2
from helios_server.profile.precisions import parse_precisions

from bench.engine.texts import DOMAINS
from bench.frontier import law
from bench.frontier.front import Key, name
from bench.frontier.quality import quality_by_domain
from bench.frontier.runs import held
from bench.frontier.subject import Subject
from bench.joint import curve
from bench.joint.curve import Cell, Round
from bench.joint.load import Shape, capacity, under
from bench.load import alone
from bench.report import arguments, publish

_EXITS, _EXIT_LAYERS = "builtin://general", (27, 24)
_PRECISIONS = (REFERENCE, Precision("int8", "int8"))
_SHORT = {"windows": 4, "rounds": 1, "seconds": 4.0, "loads": [0.6, 1.6]}
_LEAST_REQUESTS = 3
"""That a load sends, on average."""
_CALLERS_A_ROW = 2
"""While it is measured what load 1 is."""


def main() -> None:
    options = _options()
    subject = _subject(options)
    facts = {precision: alone(held, subject, precision) for precision in subject.precisions}
    memory = law.limit_mib(subject, facts[REFERENCE], options.rows)
    combined = law.combined(subject, facts, memory)
    keys = [key for key, one in combined.items() if one.rows]
    shape = Shape(options.isl, options.osl, options.seconds, options.threads)
    full = subject.limits(subject.depths[0], REFERENCE, memory)
    unit = asyncio.run(capacity(full, shape, _CALLERS_A_ROW * options.rows))
    _tell(f"load 1 is {unit:.2f} requests a second, in {memory} MiB")
    rates = {load: load * unit for load in options.loads}
    _check(rates, options)
    rounds = _rounds(subject, keys, memory, rates, shape, options.rounds)
    cells = [Cell(key, load, rates[load], rounds[key, load]) for key in keys for load in options.loads]
    quality = quality_by_domain(subject, options, _tell)
    points = [cell.point({domain: by[cell.key].value for domain, by in quality.items()}) for cell in cells]
    says = list(curve.told(points))
    figures = {
        "memoryMiB": memory,
        "model": Path(subject.uri).name,
        "requestsPerSecondAtLoad1": round(unit, 3),
        "prompt": options.isl,
        "new": options.osl,
        "seconds": options.seconds,
        "threads": options.threads,
        "rows": {name(key): one.rows for key, one in combined.items()},
        "points": [asdict(point) | {"name": cell.name} for point, cell in zip(points, cells, strict=True)],
        "rounds": {cell.name: cell.rounds for cell in cells},
        "says": says,
    }
    for line in says:
        _tell(line)
    if options.plot:
        from bench.joint.plot import draw  # matplotlib: not needed for the figures

        draw(points, f"{Path(subject.uri).name}, {memory} MiB", options.plot)
    publish(options.output, figures, list(curve.claims(cells, quality)))


def _check(rates: Mapping[float, float], options: Namespace) -> None:
    """Nothing is told by a load that hardly sends anything."""
    load, rate = min(rates.items())
    if rate * options.seconds < _LEAST_REQUESTS:
        sys.exit(
            f"error: --seconds: load {load:g} is {rate:.2f} requests a second here, too few in"
            f" {options.seconds:g} s; give more seconds, or a machine that is not busy"
        )


def _rounds(
    subject: Subject,
    keys: Sequence[Key],
    memory_mib: int,
    rates: Mapping[float, float],
    shape: Shape,
    number: int,
) -> dict[tuple[Key, float], list[Round]]:
    """Rounds over all combinations, and the loads of each, in random order: what drifts hits all alike. All
    have the same requests at the same moments."""
    order, found = random.Random(0), {(key, load): list[Round]() for key in keys for load in rates}
    for each in range(number):
        for key in order.sample(keys, len(keys)):
            loads = order.sample(list(rates), len(rates))
            asked = [(rates[load], 100 * each + list(rates).index(load)) for load in loads]
            seen = asyncio.run(under(subject.limits(*key, memory_mib), shape, asked))
            for load, one in zip(loads, seen, strict=True):
                found[key, load].append(one)
                _tell(f"round {each + 1}: {name(key)} at load {load:g}: {_brief(one)}")
    return found


# -- what is asked -------------------------------------------------------------------------------------------


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--model", help="file:///path (default: SmolLM2-135M with its general heads)")
    add("--depths", type=_depths, help="below full (default: 27,24, with --short 24; two thirds of --model)")
    add("--precisions", type=parse_precisions, default=_PRECISIONS, help="(default: auto/auto,int8/int8)")
    add("--domains", nargs="+", choices=list(DOMAINS), default=list(DOMAINS))
    add("--rows", type=int, default=4, help="that full depth as published holds (default: 4)")
    add("--loads", type=float, nargs="+", default=[0.6, 1.0, 1.6], help="(default: 0.6 1 1.6)")
    add("--isl", type=int, default=96, help="tokens of a prompt (default: 96)")
    add("--osl", type=int, default=48, help="tokens of an answer (default: 48)")
    add("--rounds", type=int, default=2, help="(default: 2)")
    add("--seconds", type=float, default=8.0, help="in which a load sends (default: 8)")
    add("--windows", type=int, default=12, help="of text, of each domain (default: 12)")
    add("--window-tokens", type=int, default=256)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a pod's engine (default: all)")
    add("--plot", type=Path, metavar="FILE", help="needs matplotlib")
    add("--short", action="store_true", help="does it run?")
    options = parser.parse_args()
    if options.short:
        vars(options).update(_SHORT)
    options.precisions = tuple(dict.fromkeys((REFERENCE, *options.precisions)))
    options.loads = sorted(set(options.loads))
    if options.loads[0] <= 0:
        parser.error("argument --loads: a load is above 0")
    return options


def _subject(options: Namespace) -> Subject:
    uri = options.model or f"file://{ensure_smollm2()}"
    exits = "" if options.model else _EXITS
    sizes: dict[str, Any] = {"isl": options.isl, "osl": options.osl}
    deepest = Subject(uri, exits, (), (), **sizes).opened[0].checkpoint.config.num_layers
    usual = (deepest * 2 // 3,) if options.model else _EXIT_LAYERS[1:] if options.short else _EXIT_LAYERS
    return Subject(uri, exits, (deepest, *(options.depths or usual)), options.precisions, **sizes)


def _depths(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in text.split(",")}, reverse=True))


def _brief(one: Round) -> str:
    return f"{one['sent']:.0f} sent, {one['tokens-per-second']:.0f} tokens/s, p99 {one['e2e-p99']:.0f} ms"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
