"""Memory that weights crowd, and more callers than rows: what the layer budget makes of it.

`python -m bench.engine.crowded`: SmolLM2-135M under the limit at which full depth holds --rows rows, each run
in a process of its own, twice as many requests in flight as rows (the closed loop of `bench.load`). A pair is
three runs, in an order that turns: full depth; the budget with no more rows than that; the budget with all
the rows that it has room for. Claims, medians of the pairs with least and greatest: `compute-ratio`,
throughput of the second over the first; `capacity-ratio`, rows of the third over the first;
`throughput-ratio`, of the third over the first; `share-of-possible`, that over the smaller of the other two;
rows, tokens a second and latencies (quantiles over a run, in milliseconds; the first token is told with the
wait for a row).
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from helios_server.models.store import ensure_smollm2

from bench.budget import EXITS, Subject, alone, limit_mib, limits_at, prose, serve
from bench.engine import quiet
from bench.load import Load
from bench.report import Claim, arguments, claim, publish

FULL, HELD, FREE = "full-depth", "budget-same-rows", "budget"
Pair = Mapping[str, Load]


def main() -> None:
    options = _options()
    seen = quiet.insist(2, options.busy)
    subject = Subject(f"file://{ensure_smollm2()}", EXITS)
    deepest = subject.checkpoint.config.num_layers
    limit = limit_mib(subject, options)
    texts = prose(subject, options.isl)

    def run(depth: int, rows: int | None = None) -> Load:
        limits = limits_at(subject, depth, limit, options)
        return alone(serve, replace(limits, max_batch_size=rows), texts, options)

    pairs: list[Pair] = []
    rows = run(deepest).rows  # the first run warms the disk's cache too
    for number in range(options.pairs):
        planned = [(FULL, deepest, None), (HELD, options.budget, rows), (FREE, options.budget, None)]
        turned = planned[number % 3 :] + planned[: number % 3]
        pairs.append({name: run(depth, most) for name, depth, most in turned})
        told = {name: asdict(load) for name, load in pairs[-1].items()}
        print(f"pair {number + 1}: {json.dumps(told)}", file=sys.stderr)
    figures: dict[str, Any] = {
        "memoryMiB": limit,
        "layers": deepest,
        "budgetLayers": options.budget,
        "pairs": [{name: asdict(load) for name, load in pair.items()} for pair in pairs],
        "quietBefore": seen,
        "quietAfter": quiet.look(2),
    }
    publish(options.output, figures, list(claims_of(pairs)), ("torch",))


def claims_of(pairs: Sequence[Pair]) -> Iterator[Claim]:
    def ratio(over: str, under: str) -> list[float]:
        return [pair[over].tokens_per_second / pair[under].tokens_per_second for pair in pairs]

    compute, throughput = ratio(HELD, FULL), ratio(FREE, FULL)
    capacity = [pair[FREE].rows / pair[FULL].rows for pair in pairs]
    possible = [min(both) for both in zip(compute, capacity, strict=True)]
    yield claim("compute-ratio", compute, "x")
    yield claim("capacity-ratio", capacity, "x")
    yield claim("throughput-ratio", throughput, "x")
    shares = [reached / most for reached, most in zip(throughput, possible, strict=True)]
    yield claim("share-of-possible", shares, "share")
    for name in (FULL, HELD, FREE):
        loads = [pair[name] for pair in pairs]
        yield claim(f"rows-{name}", [load.rows for load in loads], "rows")
        yield claim(f"tokens-per-second-{name}", [load.tokens_per_second for load in loads], "tokens/s")
        known = set.intersection(*(set(load.latency_ms) for load in loads))
        for latency in sorted(known):
            yield claim(f"{latency}-{name}", [load.latency_ms[latency] for load in loads], "ms")


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=4, help="that full depth holds (default: 4)")
    add("--budget", type=int, default=24, help="layers (default: 24)")
    add("--isl", type=int, default=96, help="tokens of a prompt (default: 96)")
    add("--osl", type=int, default=48, help="tokens of an answer (default: 48)")
    add("--pairs", type=int, default=6, help="of three runs (default: 6)")
    add("--warm-up", type=float, default=8, help="seconds before the measured ones (default: 8)")
    add("--seconds", type=float, default=15, help="measured (default: 15)")
    add("--short", action="store_true", help="3 pairs of 8 s: three minutes")
    add("--busy", action="store_true", help="measure though others use the machine")
    options = parser.parse_args()
    options.device = "cpu"
    if options.short:
        options.pairs, options.warm_up, options.seconds = 3, 4.0, 8.0
    return options


if __name__ == "__main__":
    main()
