"""The timing law against steps that its fit has not seen: what a profile predicts of (depth, batch) pairs.

`python -m bench.engine.timing_law`: for each format the shapes that a profile fits, and beside them --depths
by --batches that it does not, decoding with the model's own head and with that of the bundle, all in the same
rounds. No batch is one that a profile times, no depth but the full one, and no context, so that no pair is.
Claims: `law-over-measured`, the law's time of a step over the one measured, by depth and batch (median of
--sweeps sweeps, least and greatest), and `law-worst-percent`, how far the worst of them is off.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from helios_contract.results import StepTimeFit
from helios_server.exits.head import BareHead
from helios_server.models.cache import cache_root
from helios_server.models.store import ensure_smollm2
from helios_server.planning.fitting import fit
from helios_server.planning.timing import OWN_HEAD, StepPoint, step_ns
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.step_bench import Bench
from helios_server.profile.sweep import Effort, sweep
from helios_server.profile.timing_settings import TimingSettings
from helios_server.profile.workload import BATCHES, Room, Shape, shapes_to_fit

from bench.engine import quiet
from bench.engine.formats import FORMATS, asked
from bench.report import Claim, arguments, claim, publish

_CONTEXTS = (96, 200)
"""Tokens of a row, by turns, where the room has as many: neither is one that is fitted."""
_MEMORY_MIB = 6144


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    seen = quiet.insist(options.threads, options.busy)
    model = options.model or f"file://{ensure_smollm2()}"
    figures: dict[str, Any] = {"model": model.rpartition("/")[2], "threads": options.threads}
    claims: list[Claim] = []
    for dtype in options.formats:
        found = measure(model, dtype, options)
        figures[dtype] = found
        claims += claims_of(dtype, found["sweeps"])
    figures |= {"quietBefore": seen, "quietAfter": quiet.look(options.threads)}
    publish(options.output, figures, claims, ("torch",))


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--model", help="file:///path (default: SmolLM2-135M)")
    add("--exits", default="builtin://general", help="bundle of heads (default: builtin://general)")
    add("--formats", nargs="+", default=FORMATS, help="(default: float16 bfloat16 int8)")
    add("--depths", type=int, nargs="+", default=[9, 15, 20, 24, 27, 30], help="(default: 9 15 20 24 27 30)")
    add(
        "--batches",
        type=int,
        nargs="+",
        default=[5, 6, 12, 24, 48],
        help=f"none of {' '.join(map(str, BATCHES))}, which are timed (default: 5 6 12 24 48)",
    )
    add("--sweeps", type=int, default=5, help="each with a fit of its own (default: 5)")
    add("--seconds", type=float, default=20.0, help="of a sweep, at least 5 rounds (default: 20)")
    add("--short", action="store_true", help="2 sweeps of 12 s: a minute a format")
    add("--threads", type=int, default=torch.get_num_threads(), help="(default: torch's own choice)")
    add("--busy", action="store_true", help="measure though others use the machine")
    options = parser.parse_args()
    if options.short:
        options.sweeps, options.seconds = 2, 12.0
    if seen := sorted(set(options.batches) & set(BATCHES)):
        parser.error(f"argument --batches: {seen} are timed by a profile: they are not held out")
    return options


def measure(model: str, dtype: str, options: Namespace) -> dict[str, Any]:
    """sweeps: by sweep, law over measured by "layers-batch-head"; fit: of the last sweep."""
    names = [Candidate("own", model), Candidate("heads", model, None, options.exits)]
    named, precision = asked(dtype)
    settings = TimingSettings(dtype=named, memory_mib=_MEMORY_MIB)
    bench = Bench.open(open_backbone(names, cache_root()), settings, precision)
    fitted = shapes_to_fit(bench.deepest, bench.digests, bench.room)
    unseen = list(held_out(options.depths, options.batches, bench.digests, bench.deepest, bench.room))
    steps = [bench.step(shape) for shape in (*fitted, *unseen)]
    sweeps = []
    for number in range(options.sweeps):
        durations = [each.quiet_ns for each in sweep([steps], Effort(options.seconds, 5), seed=number)[0]]
        points = [_point(shape, ns) for shape, ns in zip((*fitted, *unseen), durations, strict=True)]
        law = fit(points[: len(fitted)])
        sweeps.append({_name(p): round(_predicted(law, p) / p.step_ns, 4) for p in points[len(fitted) :]})
        print(f"{dtype}: sweep {number + 1} of {options.sweeps}", file=sys.stderr)
    return {"sweeps": sweeps, "fit": _told(law), "errorOfTheFitPercent": law.error_percent}


def held_out(
    depths: Sequence[int], batches: Sequence[int], digests: Mapping[str, str], deepest: int, room: Room
) -> Iterator[Shape]:
    """Every pair with every head that may serve there; full depth has the model's own."""
    contexts = itertools.cycle(_CONTEXTS)
    for layers, batch in itertools.product(depths, batches):
        for kind, digest in digests.items():
            if layers < deepest or kind == BareHead.kind:
                yield Shape(layers, kind, digest, batch, room.context_for(batch, next(contexts)))


def claims_of(dtype: str, sweeps: Sequence[Mapping[str, float]]) -> Iterator[Claim]:
    for name in sweeps[0]:
        yield claim(f"law-over-measured-{dtype}-{name}", [each[name] for each in sweeps], "x")
    medians = {name: statistics.median(each[name] for each in sweeps) for name in sweeps[0]}
    worst = max(medians, key=lambda name: abs(medians[name] - 1))
    off = [100 * abs(each[worst] - 1) for each in sweeps]
    yield claim(f"law-worst-percent-{dtype}", off, "percent")


def _point(shape: Shape, ns: float) -> StepPoint:
    return StepPoint(shape.layers, shape.rows, shape.kv_tokens, shape.decoding, shape.head_kind, ns)


def _predicted(law: StepTimeFit, point: StepPoint) -> float:
    return step_ns(
        law,
        layers=point.layers,
        rows=point.rows,
        kv_tokens=point.kv_tokens,
        sampled=point.sampled,
        head_kind=point.head_kind,
    )


def _name(point: StepPoint) -> str:
    return f"layers-{point.layers}-batch-{point.rows:g}-{point.head_kind}"


def _told(law: StepTimeFit) -> dict[str, Any]:
    return {
        "stepNs": law.step_ns,
        "perLayerNs": law.per_layer_ns,
        "perLayerRowNs": law.per_layer_row_ns,
        "perLayerKvTokenNs": law.per_layer_kv_token_ns,
        "heads": {kind: [cost.base_ns, cost.per_row_ns] for kind, cost in law.heads.items()},
        "atRows": law.at_rows,
        "layerAtNs": law.layer_at_ns,
        "headAtNs": law.heads[OWN_HEAD].at_ns,
    }


if __name__ == "__main__":
    main()
