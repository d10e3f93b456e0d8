"""A step at every layer budget, against the sum of its parts: what the budget could save, and what it does.

`python -m bench.engine.budgets`: the engine as a pod runs it, without the doors; all rows at one depth, every
depth and batch in each round, in random order. The parts are those of the round's steps at full depth (what
is fixed, a layer, the LM head) and the exit head of the depth itself. Claims, medians of the rounds with
least and greatest: `step-over-parts`, the step's time over fixed part + k layers + LM head + exit head;
`ideal-ratio`, how much shorter that sum is than the one at full depth; `ratio`, how much shorter the step is;
`share-of-ideal`, the one over the other; `outside-kernels`, the share of a full step that is neither layers
nor heads, nor the one pass over the logits.
"""

from __future__ import annotations

import itertools
import queue
import random
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from helios_contract.limits import Audit, Limits
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import Event, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.models.store import ensure_smollm2

from bench.engine import quiet
from bench.engine.formats import FORMATS, asked
from bench.engine.parts import KERNELS, MODEL, PARTS, median_step, watched
from bench.report import Claim, arguments, claim, publish

_MEMORY_MIB = 6144
Parts = Mapping[str, float]
"""Seconds of a step by part; `step`: of the whole."""


@dataclass
class Rounds:
    """At one batch. by_depth: a step's parts in each round, by depth in layers; full: the model's depth."""

    batch: int
    full: int
    by_depth: dict[int, list[Parts]] = field(default_factory=dict)

    def exits(self) -> list[int]:
        return sorted(depth for depth in self.by_depth if depth != self.full)

    def pairs(self, depth: int) -> list[tuple[Parts, Parts]]:
        """A round's step at full depth, and at this one."""
        return list(zip(self.by_depth[self.full], self.by_depth[depth], strict=True))


# -- from seconds to figures ---------------------------------------------------------------------------------


def expected(full: Parts, layers: int, depth: int, exit_head: float) -> float:
    """Seconds of a step of `depth` layers, by the parts of one of all `layers`."""
    fixed = sum(full[name] for name in PARTS if name not in MODEL)
    return fixed + full["layers"] * depth / layers + full["lm head"] + exit_head


def claims_of(found: Rounds, name: str) -> Iterator[Claim]:
    """name: of the format."""
    full, batch = found.full, f"{name}-batch-{found.batch}"
    outside = [1 - sum(parts[kernel] for kernel in KERNELS) / parts["step"] for parts in found.by_depth[full]]
    yield claim(f"outside-kernels-{batch}", outside, "share")
    for depth in found.exits():
        pairs = found.pairs(depth)
        sums = [expected(deep, full, depth, short["exit head"]) for deep, short in pairs]
        whole = [expected(deep, full, full, deep["exit head"]) for deep, _ in pairs]
        over = [short["step"] / total for (_, short), total in zip(pairs, sums, strict=True)]
        ideal = [all_of_it / total for all_of_it, total in zip(whole, sums, strict=True)]
        ours = [deep["step"] / short["step"] for deep, short in pairs]
        at = f"{batch}-layers-{depth}"
        yield claim(f"step-over-parts-{at}", over, "x")
        yield claim(f"ideal-ratio-{at}", ideal, "x")
        yield claim(f"ratio-{at}", ours, "x")
        yield claim(f"share-of-ideal-{at}", [a / b for a, b in zip(ours, ideal, strict=True)], "share")


# -- measuring -----------------------------------------------------------------------------------------------


class Bench:
    """An engine on a model at one format. depths: below full depth; exits: bundle of heads, "" for none."""

    def __init__(self, model: str, exits: str, dtype: str, depths: Sequence[int], options: Namespace) -> None:
        named, precision = asked(dtype)
        self._limits = Limits(
            generation=1,
            candidate="bench",
            model_uri=model,
            weight_dtype=precision.weight_dtype,
            exits_uri=exits,
            exit_layers=tuple(depths),
            max_batch_size=max(options.batches),
            max_queue_size=1024,
            memory_mib=_MEMORY_MIB,
            tokens_per_request=options.prompt + options.new,
            audit=Audit(percent=0),
        )
        config = EngineConfig(dtype=named, threads=options.threads, prefix_caching=False)
        self.engine = Engine.start(config, self._limits)
        self.full = self.engine.serving.num_layers
        self.heads = {depth: self._head(depth) for depth in (*depths, self.full)}
        self._options = options
        self._numbers = itertools.count()

    def _head(self, depth: int) -> str:
        return self.engine.serving.weights.heads.at(self.engine.serving.limits.exits_digest, depth).kind

    def rounds(self) -> list[Rounds]:
        """By batch. The first round warms up and is dropped."""
        found = [Rounds(batch, self.full) for batch in self._options.batches]
        cells = [(one, depth) for one in found for depth in self.heads]
        dice = random.Random(0)
        for number in range(self._options.rounds + 1):
            for one, depth in dice.sample(cells, len(cells)):
                parts = self._step(one.batch, depth)
                if number:
                    one.by_depth.setdefault(depth, []).append(parts)
            print(f"round {number} of {self._options.rounds}", file=sys.stderr)
        return found

    def _step(self, batch: int, depth: int) -> Parts:
        options, dice = self._options, random.Random(batch)
        sampling = SamplingParams(max_tokens=options.new, ignore_eos=True)
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        vocabulary = self.engine.serving.vocabulary
        with watched(batch) as steps:
            for _ in range(batch):
                ids = tuple(dice.choices(range(vocabulary // 2, vocabulary), k=options.prompt))
                name = f"bench-{next(self._numbers)}"
                self.engine.submit(GenerationRequest(name, ids, sampling, depth % self.full), events.put)
            ended = 0
            while ended < batch:
                event = events.get()
                if not isinstance(event, FinishedEvent | TokensEvent):
                    raise event.error
                ended += isinstance(event, FinishedEvent)
        return median_step(steps)


def main() -> None:
    options = _options()
    seen = quiet.insist(options.threads, options.busy)
    model = options.model or f"file://{ensure_smollm2()}"
    figures: dict[str, Any] = {"model": model.rpartition("/")[2], "threads": options.threads}
    claims: list[Claim] = []
    for dtype in options.formats:
        bench = Bench(model, options.exits, dtype, options.depths, options)
        try:
            found = bench.rounds()
        finally:
            bench.engine.stop()
        figures[dtype] = {"heads": bench.heads, "millisecondsByBatchAndDepth": _told(found)}
        claims += itertools.chain.from_iterable(claims_of(one, dtype) for one in found)
    figures |= {"quietBefore": seen, "quietAfter": quiet.look(options.threads)}
    publish(options.output, figures, claims, ("torch",))


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--model", help="file:///path (default: SmolLM2-135M)")
    add("--exits", default="builtin://general", help="bundle of heads (default: builtin://general)")
    add("--depths", type=int, nargs="+", default=[6, 12, 18, 24, 27], help="layers (default: 6 12 18 24 27)")
    add("--formats", nargs="+", default=FORMATS, help="(default: float16 bfloat16 int8)")
    add("--batches", type=int, nargs="+", default=[1, 8, 32], help="rows at once (default: 1 8 32)")
    add("--prompt", type=int, default=64, help="tokens of a prompt (default: 64)")
    add("--new", type=int, default=48, help="tokens of an answer (default: 48)")
    add("--rounds", type=int, default=9, help="of all depths and batches (default: 9)")
    add("--short", action="store_true", help="3 rounds of 24 tokens: two or three minutes")
    add("--threads", type=int, default=torch.get_num_threads(), help="(default: torch's own choice)")
    add("--busy", action="store_true", help="measure though others use the machine")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.new = 3, 24
    return options


def _told(found: Sequence[Rounds]) -> dict[str, Any]:
    """Medians of the rounds."""
    return {
        str(one.batch): {
            str(depth): {
                name: round(1000 * statistics.median(parts[name] for parts in rounds), 3)
                for name in (*PARTS, "step")
            }
            for depth, rounds in sorted(one.by_depth.items())
        }
        for one in found
    }


if __name__ == "__main__":
    main()
