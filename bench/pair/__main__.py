"""Two models, each better on its own kind of text: what a loop that has both is worth beside either alone.

`python -m bench.pair`: makes two specialists of SmolLM2-135M (`bench.pair.make`; minutes, once), then plays
one trace, prose, code and prose again, --requests requests of each from --callers callers, against HELIOS
with the one alone, with the other alone, and with both, objective quality, every part real; --rounds times,
in another order each. Every prompt is scored under both models, and a run by which of them really served
each request: quality is in per cent of the better one of each phase, as `decide` has it. Claims: of each run
and phase quality, bits per byte, tokens a second and p99 of the response time (medians of the rounds with
least and greatest); of the loop over the better one alone; switches, what they took, and requests that the
wrong model answered until then; of the specialists what `bench.pair.make` claims, with the 95 per cent
interval over the texts.

`python -m bench.pair --output json` is a useful run; --short says whether it runs. A phase must outlast what
it takes to notice, to measure fresh prompts under both models and to start one, or the Switch comes when the
traffic has turned again: what the loop said, and after how many requests, is in the figures (`decided`).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helios_server.exits.data import prompts

from bench.load import alone
from bench.pair import figures, make
from bench.pair.drive import Phase, Settings, drive
from bench.pair.figures import BOTH, Run, Worth
from bench.pair.judge import score
from bench.report import arguments, publish

_TRACE = ("prose", "code", "prose")
_PROMPTS = 150
"""That a phase has at most before it begins again: each is scored under both models."""
_FIRST = 16
_SHORT = {"requests": 150, "rounds": 1, "every": 30}


def main() -> None:
    options = _options()
    plan = make.plan_of(options)
    model = make.model_of(options)
    made = make.specialists(model, options.folder, plan)
    found = make.held_out({make.BASE: model, **made}, options.texts)
    options.min_quality = options.min_quality or make.promise(found)
    trace = _trace(options)
    worth = _worth(made, {prompt for phase in trace for prompt in phase.prompts})
    rounds = [_round(number, made, trace, options, worth) for number in range(options.rounds)]
    said = {
        "model": model.name,
        "plan": vars(plan),
        "candidates": {name: at.name for name, at in made.items()},
        "callers": options.callers,
        "osl": options.osl,
        "minQualityPercent": options.min_quality,
        "rounds": rounds,
    }
    publish(options.output, said, [*figures.claims(rounds), *make.claims(found)])


def _options() -> Namespace:
    parser = arguments(__doc__)
    make.add_arguments(parser)
    add = parser.add_argument_group("the trace").add_argument
    add("--requests", type=int, default=600, help="of each phase (default: 600)")
    add("--callers", type=int, default=8, help="at once (default: 8)")
    add("--osl", type=int, default=32, help="tokens of an answer (default: 32)")
    add("--rounds", type=int, default=1, help="of all three runs (default: 1)")
    add("--min-quality", type=int, help="asked, percent of the better one (default: half-way)")
    add("--memory", type=int, default=900, metavar="MIB", help="of a pod (default: 900)")
    add("--every", type=int, default=60, help="requests between two reassessments (default: 60)")
    add("--live", type=int, default=20, help="prompts that a set of live ones has (default: 20)")
    options = parser.parse_args()
    if options.short:
        vars(options).update(_SHORT)
    return options


def _trace(options: Namespace) -> list[Phase]:
    return [
        Phase(kind, _prompts(kind, min(options.requests, _PROMPTS), number), options.requests)
        for number, kind in enumerate(_TRACE)
    ]


def _prompts(kind: str, count: int, seed: int) -> Sequence[str]:
    domain = make.KINDS[kind]
    return prompts(domain, count, words=make.WORDS.get(domain), seed=100 + seed)


def _worth(made: Mapping[str, Path], texts: Iterable[str]) -> Worth:
    """Every prompt of the trace under every candidate."""
    read = sorted(texts)
    scored = {name: alone(score, at, read) for name, at in made.items()}
    return {
        name: dict(zip(read, zip(each.millibits, each.bytes, strict=True), strict=True))
        for name, each in scored.items()
    }


def _round(
    number: int, made: Mapping[str, Path], trace: Sequence[Phase], options: Namespace, worth: Worth
) -> dict[str, Any]:
    """Summaries by run. Another run begins each round: what drifts hits all alike."""
    runs = {**{name: {name: at} for name, at in made.items()}, BOTH: dict(made)}
    order = list(runs)
    found: dict[str, Any] = {}
    for name in order[number % len(order) :] + order[: number % len(order)]:
        print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
        found[name] = figures.summary(_run(runs[name], trace, options), worth)
    return {name: found[name] for name in order}


def _run(candidates: Mapping[str, Path], trace: Sequence[Phase], options: Namespace) -> Run:
    settings = Settings(
        callers=options.callers,
        osl=options.osl,
        first=_prompts(_TRACE[0], _FIRST, seed=99),
        min_quality=options.min_quality,
        memory_mib=options.memory,
        every=options.every,
        live=options.live,
    )
    with tempfile.TemporaryDirectory(prefix="helios-pair-") as state:
        return asyncio.run(drive(candidates, trace, settings, Path(state)))


if __name__ == "__main__":
    main()
