"""Two specialists of one model, each better on its own kind of text than the other: made once, measured.

`python -m bench.pair.make`: trains the top layers and the final norm of SmolLM2-135M twice, on prose and on
code, on text that `helios tune` is given too, and writes two checkpoints into the cache's `models` folder,
`smollm2-135m-prose` and `smollm2-135m-code`: candidates like any other, `file://` or `pvc://models/…`. The
same seed makes the same again; what is there is not made again. Minutes on two cores; nothing of it is
committed. Claims: bits per byte of the model and of both on held-out sources of both kinds, with the 95 per
cent interval over the texts, and what each is worth on the other's text, in per cent of the better one.
"""

from __future__ import annotations

import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from helios_server.exits.data import DOMAINS as SOURCES
from helios_server.exits.data import export, prompts
from helios_server.models.cache import cache_root, ensure_directory
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2

from bench.load import alone
from bench.pair import specialist
from bench.pair.figures import ratio_claim
from bench.pair.judge import Scored, score
from bench.pair.specialist import Plan
from bench.report import Claim, arguments, publish

KINDS = {"prose": "prose", "code": "stdlib"}
"""Of specialists by the domain that each is trained on, and the domain whose sources are held out for it."""
WORDS = {"stdlib": (55, 80)}
"""Least and most words of a text, where the domain's own would be too short to tell two models apart."""
BASE = "base"
_SHORT = {"tokens": 20_000, "steps": 30}
HeldOut = Mapping[str, Mapping[str, Scored]]
"""By kind of text, then by model."""


def main() -> None:
    parser = arguments(__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    plan = plan_of(options)
    model = model_of(options)
    made = specialists(model, options.folder, plan)
    found = held_out({BASE: model, **made}, options.texts)
    figures = {"model": model.name, "plan": vars(plan), "made": {kind: str(at) for kind, at in made.items()}}
    publish(options.output, figures, list(claims(found)), ("torch", "transformers"))


def add_arguments(parser: ArgumentParser) -> None:
    """Those that `bench.pair` takes too."""
    add = parser.add_argument_group("the specialists").add_argument
    plan = Plan()
    add("--model", help="file:///path of a Llama (default: SmolLM2-135M)")
    add("--folder", type=Path, default=cache_root() / "models", help="to put them in (default: the cache)")
    add("--layers", type=int, default=plan.layers, help="to train, from the top (default: %(default)s)")
    add("--tokens", type=int, default=plan.tokens, help="read of each kind of text (default: %(default)s)")
    add("--steps", type=int, default=plan.steps, help="of training (default: %(default)s)")
    add("--rate", type=float, default=plan.rate, help="of learning (default: %(default)s)")
    add("--seed", type=int, default=plan.seed)
    add("--texts", type=int, default=120, help="held out of each kind, to measure on (default: 120)")
    add("--short", action="store_true", help="little training, few texts: does it run?")


def plan_of(options: Namespace) -> Plan:
    if options.short:
        vars(options).update(_SHORT, texts=24, folder=options.folder / "short")  # what took minutes stays
    return Plan(**{field.name: getattr(options, field.name) for field in fields(Plan)})


def model_of(options: Namespace) -> Path:
    return Path(options.model.removeprefix("file://")) if options.model else ensure_smollm2(progress=_say)


def specialists(model: Path, folder: Path, plan: Plan) -> dict[str, Path]:
    """By kind; made where they are not in the folder yet."""
    return {kind: alone(_specialist, model, folder, kind, plan) for kind in KINDS}


def _specialist(model: Path, folder: Path, kind: str, plan: Plan) -> Path:
    source = Checkpoint.open(model)
    text = f"{SOURCES[kind].train_source}, Python {platform.python_version()}"
    recipe = f"{source.fingerprint} on {text} by {plan}"

    def build(directory: Path) -> None:
        trained = specialist.train(source, export(kind, "train"), plan, lambda said: _say(f"{kind}: {said}"))
        specialist.write(source, trained, directory)

    return ensure_directory(folder / f"{model.name}-{kind}", build, recipe)


def held_out(models: Mapping[str, Path], texts: int) -> HeldOut:
    """Of as many texts of each kind, from sources that no specialist was trained on."""
    read = {kind: prompts(domain, texts, words=WORDS.get(domain), seed=7) for kind, domain in KINDS.items()}
    return {
        kind: {name: alone(score, model, some) for name, model in models.items()}
        for kind, some in read.items()
    }


def claims(found: HeldOut) -> Iterator[Claim]:
    for kind, by_model in found.items():
        for name, scored in by_model.items():
            bits = [millibits / 1000 for millibits in scored.millibits]
            yield ratio_claim(f"bits-per-byte-{name}-on-{kind}", bits, scored.bytes, "bits/byte")
        best = min(by_model, key=lambda name: sum(by_model[name].millibits))
        for name, scored in by_model.items():
            if name != best:
                above, below = by_model[best].millibits, scored.millibits
                yield ratio_claim(f"quality-of-{name}-on-{kind}", above, below, "percent", 100)


def promise(found: HeldOut) -> int:
    """Percent of the better one, which each keeps on its own text and breaks on the other's: half-way."""
    others = [
        100 * sum(by_model[kind].millibits) / sum(scored.millibits)
        for kind, by_model in found.items()
        for name, scored in by_model.items()
        if name not in (kind, BASE)
    ]
    return min(99, int((100 + max(others)) / 2))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
