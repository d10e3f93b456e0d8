"""How the built-in bundles for SmolLM2-135M are made: `python -m helios_server.exits.recipes`.

Run by the maintainers, once; its results are committed under `builtin/`. It fetches the text, trains the
heads of each bundle on the same hidden states and measures all bundles on sources that none of them was
trained on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

from helios_server.exits.bundle import BUILTIN, HeadBundle, describe_backbone, write_bundle, write_meta
from helios_server.exits.data import DOMAINS, export
from helios_server.exits.distill import Budget
from helios_server.exits.evaluate import Evaluation, calibrate, evaluate
from helios_server.exits.hidden import gather, read_windows
from helios_server.exits.tuning import HeadPlan, TrainingText, describe_training, load_teacher, train_heads
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from helios_server.progress import Progress, Say

LAYERS = (24, 27)
KIND = "mlp"
BUNDLES = {"general": ("prose", "code"), "prose": ("prose",), "code": ("code",)}
EVALUATED = ("prose", "code", "stdlib", "speech", "german")
COMMAND = "python -m helios_server.exits.recipes"


def main() -> None:
    """Trains and measures the bundles, and prints the table of docs/exits.md."""
    arguments = _arguments()
    checkpoint = Checkpoint.open(ensure_smollm2(progress=_say))
    tokenizer = Tokenizer.open(checkpoint.path)
    if not arguments.measure_only:
        _train(checkpoint, tokenizer, arguments)
    evaluations = _measure(checkpoint, tokenizer, arguments.evaluation_tokens, arguments.seed)
    print(table(evaluations))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--tokens", type=int, default=300_000, help="tokens read of each domain")
    parser.add_argument("--steps", type=int, default=900, help="training steps per exit and domain")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluation-tokens", type=int, default=8192, help="held-out tokens of each domain")
    parser.add_argument("--measure-only", action="store_true", help="measure the bundles that are there")
    return parser.parse_args()


def _train(checkpoint: Checkpoint, tokenizer: Tokenizer, arguments: argparse.Namespace) -> None:
    backbone = load_teacher(checkpoint)
    command = f"{COMMAND} --tokens {arguments.tokens} --steps {arguments.steps} --seed {arguments.seed}"
    gathered = {}
    for name in dict.fromkeys(name for names in BUNDLES.values() for name in names):
        text = _training_text(name)
        windows = read_windows(text.path, tokenizer, arguments.tokens, arguments.seed)
        gathered[name] = (text, gather(backbone, windows, LAYERS, Progress().part(0, 1)))
    for name, domains in BUNDLES.items():
        started = time.monotonic()
        texts, states = zip(*(gathered[domain] for domain in domains), strict=True)
        steps = arguments.steps * len(domains)  # each domain is seen as often as by its specialist
        plan = HeadPlan(LAYERS, KIND, Budget(steps=steps), arguments.seed)
        heads = train_heads(backbone, states, plan, _sayer(name))
        training = describe_training(texts, states, command, arguments.seed, time.monotonic() - started)
        write_bundle(BUILTIN / name, heads, {"backbone": describe_backbone(checkpoint), "training": training})


def _sayer(name: str) -> Say:
    return lambda message: _say(f"{name}: {message}")


def _training_text(name: str) -> TrainingText:
    domain = DOMAINS[name]
    return TrainingText(export(name, "train"), name, domain.train_source, domain.licence)


def _measure(
    checkpoint: Checkpoint, tokenizer: Tokenizer, tokens: int, seed: int
) -> dict[str, dict[str, Evaluation]]:
    """domain -> bundle -> Evaluation, with the weights that serve; writes them into each bundle's
    exits.json."""
    backbone = Backbone.load(checkpoint, checkpoint.config.num_layers)
    bundles = {name: HeadBundle.load(BUILTIN / name, checkpoint) for name in BUNDLES}
    evaluations = {}
    for domain in EVALUATED:
        _say(f"measuring on {domain}")
        windows = read_windows(export(domain, "heldout"), tokenizer, tokens, seed)
        evaluations[domain] = evaluate(backbone, bundles, LAYERS, windows, tokenizer)
    for name, bundle in bundles.items():
        measured = [evaluations[domain][name].to_json(_heldout(domain)) for domain in EVALUATED]
        calibration = calibrate([evaluations[domain][name] for domain in BUNDLES[name]])
        write_meta(bundle.path, bundle.meta | {"evaluation": measured, "calibration": calibration})
    return evaluations


def _heldout(domain: str) -> str:
    return f"{domain}: {DOMAINS[domain].heldout_source}"


def table(evaluations: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """Agreement / quality percent / mean confidence, as a Markdown table."""
    lines = ["| text | bundle | layer 24 | layer 27 |", "| --- | --- | --- | --- |"]
    for domain, by_bundle in evaluations.items():
        for name, evaluation in by_bundle.items():
            cells = [
                f"{item.agreement:.2f} / {item.quality_percent:.1f} / {item.mean_confidence:.2f}"
                for item in evaluation.exits
            ]
            lines.append(f"| {domain} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _say(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    main()
