"""Trains exit heads for any supported checkpoint from text files, and writes them as a bundle.

Called by the command (`helios tune`) and by the recipes of the built-in bundles. Each text given, a file or
a folder of files, is one domain; domains are seen equally often. The backbone is never changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios_server.errors import BundleError, DataError
from helios_server.exits.bundle import HeadBundle, describe_backbone, write_bundle, write_meta
from helios_server.exits.distill import Budget, Pair, TrainableHead, distill, fit_ridge
from helios_server.exits.evaluate import calibrate, evaluate
from helios_server.exits.head import KINDS
from helios_server.exits.hidden import HiddenStates, Passed, gather, read_windows
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer
from helios_server.progress import Progress, Say, Stage, Stages

DEFAULT_TOKENS = 200_000
_FREQUENT_TOKENS = 4096  # compared at every step; see distill.py
_PROPOSED_TENTHS = (8, 9)
_HELD_OUT_SHARE, _HELD_OUT_WINDOWS = 20, 32  # every 20th window, at most 32 of a text
_READING, _TRAINING, _MEASURING = "reading", "training", "measuring"
# What else takes as long as the reading of so many tokens, until its own pace is known.
_TOKENS_OF_A_STEP, _TOKENS_OF_A_SCORE = 80, 2


@dataclass(frozen=True, slots=True)
class TrainingText:
    """One domain to train on. path: a UTF-8 file or a folder of them; the rest is recorded in the bundle."""

    path: Path
    name: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """What to train. layers: exits, one head each; kind: of head; budget: of each head; seed: of order and
    noise."""

    layers: tuple[int, ...]
    kind: str
    budget: Budget
    seed: int


def tune(
    checkpoint: Checkpoint,
    texts: Sequence[Path],
    *,
    layers: Sequence[int],
    kind: str = "mlp",
    out: Path,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    tokens: int = DEFAULT_TOKENS,
    device: str = "cpu",
    progress: Progress | None = None,
) -> HeadBundle:
    """Trains heads of one kind at `layers`, measures them on windows held out of the texts, writes `out`.

    seconds: wall clock of all training after the ridge regression, or steps: of each head (one of the two
    for kind mlp); tokens: read of each text.
    """
    _check_request(checkpoint, texts, layers, kind, out)
    if kind != "affine" and (seconds is None) == (steps is None):
        raise BundleError("seconds", "give either seconds or steps", "Set one of the two")
    started = time.monotonic()
    budget = Budget(steps=steps, seconds=None if seconds is None else seconds / len(layers))
    plan = HeadPlan(tuple(sorted(layers)), kind, budget, seed)
    domains = [TrainingText(path, path.stem, str(path), "not stated") for path in texts]
    progress = progress or Progress(say=lambda _: None)
    progress("loading the model")
    backbone, tokenizer = load_teacher(checkpoint, device), Tokenizer.open(checkpoint.path)
    parts = [_split(domain, read_windows(domain.path, tokenizer, tokens, seed)) for domain in domains]
    stages = Stages(progress, _stages(parts, plan, seconds))
    states = _read(backbone, [train for train, _ in parts], plan.layers, progress, stages.begin(_READING))
    heads = train_heads(backbone, states, plan, progress, stages.begin(_TRAINING))
    command = _command(checkpoint, texts, plan, seconds, out, tokens)
    training = describe_training(domains, states, command, seed, time.monotonic() - started)
    write_bundle(out, heads, {"backbone": describe_backbone(checkpoint), "training": training})
    progress("measuring on held-out windows")
    windows = {domain.name: each for domain, each in zip(domains, parts, strict=True)}
    return _measure(HeadBundle.load(out, checkpoint), backbone, tokenizer, windows, stages.begin(_MEASURING))


def _stages(
    parts: Sequence[tuple[Tensor, Tensor]], plan: HeadPlan, seconds: float | None
) -> dict[str, Stage]:
    """A unit: the reading of a token."""
    steps = len(plan.layers) * (plan.budget.steps or 0)
    return {
        _READING: Stage(sum(train.numel() for train, _ in parts)),
        _TRAINING: Stage(steps * _TOKENS_OF_A_STEP, None if plan.kind == "affine" else seconds),
        _MEASURING: Stage(2 * _TOKENS_OF_A_SCORE * sum(held_out.numel() for _, held_out in parts)),
    }


def _read(
    backbone: Backbone, texts: Sequence[Tensor], layers: Sequence[int], say: Say, passed: Passed
) -> list[HiddenStates]:
    """texts: [n, WINDOW_TOKENS] each."""
    tokens = sum(text.numel() for text in texts)
    say(f"reading {tokens:,} tokens")
    states, before = list[HiddenStates](), 0
    for text in texts:
        states.append(gather(backbone, text, layers, _part(passed, before, text.numel(), tokens)))
        before += text.numel()
    return states


def _part(passed: Passed, before: int, own: int, whole: int) -> Passed:
    """Of a part of the work: takes which share of that part is done."""
    return lambda done: passed((before + done * own) / whole)


def load_teacher(checkpoint: Checkpoint, device: str = "cpu") -> Backbone:
    """The full model, in bfloat16 where the processor multiplies that natively, else in float32."""
    native = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtype = "bfloat16" if native else "float32"
    layers = checkpoint.config.num_layers
    return Backbone.load(checkpoint, layers, device, dtype, native=False)  # heads learn against its matrices


def train_heads(
    backbone: Backbone,
    states: Sequence[HiddenStates],
    plan: HeadPlan,
    say: Say,
    passed: Passed = lambda _: None,
) -> dict[int, tuple[str, dict[str, Tensor]]]:
    """One head per exit layer: layer -> kind and tensors, ready for `write_bundle`."""
    heads = {}
    for index, layer in enumerate(plan.layers):
        own = _part(passed, index, 1, len(plan.layers))
        heads[layer] = (plan.kind, _train_head(backbone, states, layer, plan, say, own))
    return heads


def _train_head(
    backbone: Backbone,
    states: Sequence[HiddenStates],
    layer: int,
    plan: HeadPlan,
    tell: Say,
    passed: Passed,
) -> dict[str, Tensor]:
    def say(message: str) -> None:
        tell(f"layer {layer}: {message}")

    config, lm_head = backbone.config, backbone.head.weight
    if lm_head is None:
        raise BundleError(
            "dtype",
            "heads cannot be trained against packed weights",
            "Load the teacher in float32, and not quantised",
        )
    head = TrainableHead(plan.kind, config.hidden_size, config.norm_eps, backbone.norm)
    pairs = [Pair(domain.at[layer], domain.final) for domain in states]
    say(f"ridge regression over {sum(domain.tokens for domain in states)} tokens")
    fit_ridge(head, pairs)
    if plan.kind != "affine":
        frequent = frequent_tokens(states, config.vocab_size)
        distill(head, pairs, lm_head, frequent, plan.budget, plan.seed, say, passed)
    return head.export()


def frequent_tokens(states: Sequence[HiddenStates], vocab_size: int) -> Tensor:
    """The most frequent tokens of the texts, each domain weighing the same."""
    counts = sum(torch.bincount(domain.ids, minlength=vocab_size) / domain.tokens for domain in states)
    return torch.as_tensor(counts).argsort(descending=True)[:_FREQUENT_TOKENS]


def describe_training(
    domains: Sequence[TrainingText], states: Sequence[HiddenStates], command: str, seed: int, seconds: float
) -> dict[str, Any]:
    """The `training` part of exits.json."""
    data = [
        {"name": domain.name, "source": domain.source, "licence": domain.licence, "tokens": part.tokens}
        for domain, part in zip(domains, states, strict=True)
    ]
    date = datetime.now(UTC).date().isoformat()
    return {"data": data, "command": command, "seed": seed, "seconds": round(seconds), "date": date}


def _check_request(
    checkpoint: Checkpoint, texts: Sequence[Path], layers: Sequence[int], kind: str, out: Path
) -> None:
    """Refuses before any work what could only fail after it."""
    depth = checkpoint.config.num_layers
    if not texts:
        raise DataError("texts", "no text given", "Name at least one file or folder")
    for path in texts:
        if not path.exists():
            raise DataError(str(path), "no such file or folder", "Check the path")
    if not layers or not all(1 <= layer < depth for layer in layers):
        raise BundleError(
            "layers", f"{list(layers)} is not within 1..{depth - 1}", "Choose layers below full depth"
        )
    if kind not in KINDS:
        raise BundleError("kind", f"'{kind}' is unknown", f"Use one of {', '.join(KINDS)}")
    if out.exists() and not out.is_dir():
        raise BundleError("out", f"{out} is a file", "Name a directory")


def _split(domain: TrainingText, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows to train on, and those held out to measure and calibrate on."""
    if len(windows) < 2:
        raise DataError(str(domain.path), "is too short to train on and to measure", "Give a longer text")
    held_out = min(max(len(windows) // _HELD_OUT_SHARE, 1), _HELD_OUT_WINDOWS)
    return windows[held_out:], windows[:held_out]


def proposed_layers(num_layers: int) -> tuple[int, ...]:
    """Depths that are worth a head in most models: eight and nine tenths of all, of 30 layers 24 and
    27. The layers that are left out become rows of the batch."""
    wanted = {round(num_layers * tenths / 10) for tenths in _PROPOSED_TENTHS}
    return tuple(sorted(layer for layer in wanted if 1 <= layer < num_layers))


def _measure(
    bundle: HeadBundle,
    backbone: Backbone,
    tokenizer: Tokenizer,
    windows: dict[str, tuple[Tensor, Tensor]],
    passed: Passed,
) -> HeadBundle:
    """windows: by text, those trained on and those held out. As many of the former are scored, so that it is
    seen what was only learnt by heart."""
    evaluations, rows = [], []
    for index, (name, (trained, held_out)) in enumerate(windows.items()):
        halves = [_part(passed, 2 * index + half, 1, 2 * len(windows)) for half in (0, 1)]
        found, known = (
            evaluate(backbone, {"": bundle}, bundle.layers, some, tokenizer, half)[""]
            for some, half in zip((held_out, trained[: len(held_out)]), halves, strict=True)
        )
        evaluations.append(found)
        row = found.to_json(f"{name}: held-out windows")
        row["trainedTokens"] = trained.numel()
        row["trainedQualityPercent"] = {
            str(exit.layer): round(exit.quality_percent, 4) for exit in known.exits
        }
        rows.append(row)
    calibration = calibrate(evaluations)
    write_meta(bundle.path, bundle.meta | {"evaluation": rows, "calibration": calibration})
    return HeadBundle.load(bundle.path, backbone.checkpoint)


def _command(
    checkpoint: Checkpoint,
    texts: Sequence[Path],
    plan: HeadPlan,
    seconds: float | None,
    out: Path,
    tokens: int,
) -> str:
    parts = ["helios tune", f"file://{checkpoint.path}", *map(str, texts)]
    parts += [f"--layers {','.join(map(str, plan.layers))}", f"--kind {plan.kind}", f"--out {out}"]
    if plan.kind != "affine":
        parts.append(f"--seconds {seconds:g}" if seconds is not None else f"--steps {plan.budget.steps}")
    return " ".join([*parts, f"--seed {plan.seed}", f"--tokens {tokens}"])
