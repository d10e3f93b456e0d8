"""Depth, precision of weights, precision of keys and values: what is each combination worth under one memory
limit?

`python -m bench.frontier`: SmolLM2-135M with bundle `general`, in the memory in which full depth as
published holds --rows rows. Of every combination: quality on unseen prose and code (teacher-forced
windows), rows by the memory law and as a serving process plans them, tokens a second and joules a token of
a saturating load at that batch, --rounds times in random order, each run in a process of its own. Then the
Pareto front of quality and tokens a second, and for each depth below full whether it is on it. At a second
limit, in which full depth in int8 holds --second-rows rows, processes only start: what they plan stands
beside the law.

Claims: quality with its 95 per cent interval over the windows; speeds and joules as the median of the
rounds with least and greatest; ratios of speed within a round, against full depth as published. SmolLM2's
weights come from a file of 4 bits in groups of 32: int4 in such groups loses nothing *of it*, by
construction.

`python -m bench.frontier --rounds 2 --warm-up 1 --seconds 3 --windows 12 --output json` is a useful run of
some ten minutes on two quiet cores; --short takes less than five: four of the six precisions, one round.
--model takes another checkpoint with its own heads.
"""

from __future__ import annotations

import random
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from helios_contract.serves import PRECISIONS, REFERENCE, Precision
from helios_server.exits.data import prompts
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile.precisions import parse_precisions

from bench.engine.texts import DOMAINS
from bench.frontier import front, law
from bench.frontier.figures import Measured, claims
from bench.frontier.front import Key, name
from bench.frontier.quality import quality_by_domain
from bench.frontier.runs import Served, held, serve
from bench.frontier.subject import Subject, depths, subject_of
from bench.load import alone
from bench.report import arguments, publish

_SHORT = {"windows": 6, "rounds": 1, "warm_up": 1.0, "seconds": 3.0}
_IN_SHORT = tuple(
    Precision(*pair) for pair in (("auto", "auto"), ("int8", "auto"), ("int8", "int8"), ("int4", "int8"))
)
_INT8 = Precision("int8", "auto")


def main() -> None:
    options = _options()
    subject = _subject(options)
    facts = {precision: alone(held, subject, precision) for precision in subject.precisions}
    first = law.limit_mib(subject, facts[REFERENCE], options.rows)
    full = (subject.depths[0], REFERENCE)
    rows = {key: one.rows for key, one in law.combined(subject, facts, first).items()}
    measured = Measured(quality_by_domain(subject, options, _tell), rows)
    served = _under_load(subject, measured, first, options)
    limits = {first: served}
    if _INT8 in facts:
        second = law.limit_mib(subject, facts[_INT8], options.second_rows)
        limits[second] = _started(subject, second, law.combined(subject, facts, second), options)
    points = measured.points()
    found = list(claims(measured, full))
    for limit, seen in limits.items():
        found += law.claims(limit, law.combined(subject, facts, limit), seen)
    domains = list(measured.quality)
    says = [line for domain in domains for line in front.told(points, domain)]
    figures = {
        "memoryMiB": list(limits),
        "model": Path(subject.uri).name,
        "tokensPerRequest": subject.tokens,
        "energySource": next((one.energy_source for one in served.values()), ""),
        "points": [asdict(point) | {"name": name(point.key)} for point in points],
        "front": {
            domain: [name(point.key) for point in front.by_speed(points, domain)] for domain in domains
        },
        "rows": {
            limit: law.side_by_side(law.combined(subject, facts, limit), seen)
            for limit, seen in limits.items()
        },
        "says": says,
    }
    for line in says:
        print(line, file=sys.stderr)
    if options.plot:
        from bench.frontier.plot import draw  # matplotlib: not needed for the figures

        draw(points, f"{Path(subject.uri).name}, {first} MiB", options.plot)
    publish(options.output, figures, found)


# -- what is measured ----------------------------------------------------------------------------------------


def _under_load(
    subject: Subject, measured: Measured, memory_mib: int, options: Namespace
) -> Mapping[Key, Served]:
    """Rounds over all combinations that hold a request, in random order: what drifts hits all alike."""
    keys = [key for key, rows in measured.rows.items() if rows]
    texts, order, served = _prompts(subject), random.Random(0), {}
    measured.tokens_per_second.update({key: [] for key in keys})
    for number in range(options.rounds):
        for key in order.sample(keys, len(keys)):
            one = alone(
                serve, subject, *key, memory_mib, texts, options.warm_up, options.seconds, options.watts
            )
            served[key] = one
            measured.tokens_per_second[key].append(one.tokens_per_second)
            if one.joules_per_token is not None:
                measured.joules_per_token.setdefault(key, []).append(one.joules_per_token)
            _tell(f"round {number + 1}: {name(key)}: {one}")
    return served


def _started(subject: Subject, memory_mib: int, by_law: law.Law, options: Namespace) -> Mapping[Key, Served]:
    """What processes plan, without a load; in a short run three that hold a request."""
    keys = list(by_law)
    if options.short:
        fitting = [key for key in keys if by_law[key].rows]
        keys = list(dict.fromkeys((fitting[0], fitting[len(fitting) // 2], fitting[-1])))
    return {key: alone(serve, subject, *key, memory_mib, (), 0.0, 0.0, None) for key in keys}


def _prompts(subject: Subject) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.open(subject.opened[0].checkpoint.path)
    return [tuple(tokenizer.encode(text))[: subject.isl] for text in prompts("stdlib", 100)]


# -- what is asked -------------------------------------------------------------------------------------------


def _options() -> Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--model", help="file:///path (default: SmolLM2-135M with its general heads)")
    parser.add_argument("--depths", type=depths, help="below full, for --model (default: two thirds)")
    parser.add_argument("--dtype")
    parser.add_argument("--precisions", type=parse_precisions, help="default: six, with --short four")
    parser.add_argument("--domains", nargs="+", choices=list(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--rows", type=int, default=4, help="that full depth as published holds")
    parser.add_argument("--second-rows", type=int, default=8, help="that full depth in int8 holds")
    parser.add_argument("--isl", type=int, default=96)
    parser.add_argument("--osl", type=int, default=48)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--window-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before the measured ones")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--watts", type=float, help="of one busy core, where no counter exists")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="needs matplotlib")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        vars(options).update(_SHORT)
    asked = options.precisions or (_IN_SHORT if options.short else PRECISIONS)
    options.precisions = tuple(dict.fromkeys((REFERENCE, *asked)))
    return options


def _subject(options: Namespace) -> Subject:
    return subject_of(
        options.model, options.depths, options.precisions, options.isl, options.osl, options.dtype
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
