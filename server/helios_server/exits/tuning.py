"""Trains exit heads for any supported checkpoint from text files, and writes them as a bundle.

Called by the command (`helios tune`) and by the recipes of the built-in bundles. Each text given, a file or a folder
of files, is one domain; domains are seen equally often. The backbone is never changed.
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

from helios_server.errors import BundleError
from helios_server.exits.bundle import HeadBundle, describe_backbone, write_bundle
from helios_server.exits.distill import Budget, Pair, TrainableHead, distill, fit_ridge
from helios_server.exits.head import KINDS
from helios_server.exits.hidden import HiddenStates, Progress, gather, read_windows
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer

DEFAULT_TOKENS = 200_000
_FREQUENT_TOKENS = 6144  # compared at every step; see distill.py


@dataclass(frozen=True, slots=True)
class TrainingText:
    """One domain to train on. path: a UTF-8 file or a folder of them; the rest is recorded in the bundle."""

    path: Path
    name: str
    source: str
    licence: str


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
    progress: Progress = lambda _: None,
) -> HeadBundle:
    """Trains heads of one kind at `layers` and writes the bundle to `out`.

    seconds: wall clock for all training after the ridge regression, or steps: per exit; tokens: read of each text.
    """
    check_request(checkpoint, layers, kind, out)
    if (seconds is None) == (steps is None) and kind != "affine":
        raise BundleError("seconds", "give either seconds or steps", "Set one of them")
    started = time.monotonic()
    domains = [TrainingText(path, path.stem, str(path), "not stated") for path in texts]
    backbone = load_teacher(checkpoint, device)
    tokenizer = Tokenizer.open(checkpoint.path)
    states = gather_texts(backbone, tokenizer, domains, layers, tokens, seed, progress)
    budget = Budget(steps=steps, seconds=None if seconds is None else seconds / len(layers))
    heads = train_heads(backbone, states, layers, kind, budget, seed, progress)
    command = _command(checkpoint, texts, layers, kind, out, seconds, steps, seed, tokens)
    training = describe_training(domains, states, command, seed, time.monotonic() - started)
    write_bundle(out, heads, {"backbone": describe_backbone(checkpoint), "training": training, "evaluation": []})
    return HeadBundle.load(out, checkpoint)


def check_request(checkpoint: Checkpoint, layers: Sequence[int], kind: str, out: Path) -> None:
    """Refuses before any work what could only fail after it."""
    depth = checkpoint.config.num_layers
    if not layers or not all(1 <= layer < depth for layer in layers):
        raise BundleError("layers", f"{list(layers)} is not within 1..{depth - 1}", "Choose layers below full depth")
    if kind not in KINDS:
        raise BundleError("kind", f"'{kind}' is unknown", f"Use one of {', '.join(KINDS)}")
    if out.exists() and not out.is_dir():
        raise BundleError("out", f"{out} is a file", "Name a directory")


def load_teacher(checkpoint: Checkpoint, device: str = "cpu") -> Backbone:
    """The full model, in bfloat16 where the processor multiplies that natively, else in float32."""
    native = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Backbone.load(checkpoint, checkpoint.config.num_layers, device, "bfloat16" if native else "float32")


def gather_texts(
    backbone: Backbone,
    tokenizer: Tokenizer,
    domains: Sequence[TrainingText],
    layers: Sequence[int],
    tokens: int,
    seed: int,
    progress: Progress,
) -> list[HiddenStates]:
    """Hidden states of about `tokens` tokens of each domain."""
    states = []
    for domain in domains:
        progress(f"reading {domain.name}")
        windows = read_windows(domain.path, tokenizer, tokens, seed)
        states.append(gather(backbone, windows, layers, progress))
    return states


def train_heads(
    backbone: Backbone,
    states: Sequence[HiddenStates],
    layers: Sequence[int],
    kind: str,
    budget: Budget,
    seed: int,
    progress: Progress,
) -> dict[int, tuple[str, dict[str, Tensor]]]:
    """One head per layer: layer -> kind and tensors, ready for `write_bundle`."""
    heads = {}
    for layer in layers:
        head = TrainableHead(kind, backbone.config.hidden_size, backbone.config.norm_eps, backbone.norm)
        pairs = [Pair(domain.at[layer], domain.final) for domain in states]
        progress(f"layer {layer}: ridge regression over {sum(domain.tokens for domain in states)} tokens")
        fit_ridge(head, pairs)
        if kind != "affine":
            frequent = frequent_tokens(states, backbone.config.vocab_size)
            distill(head, pairs, _lm_head(backbone), frequent, budget, seed, lambda m: progress(f"layer {layer}: {m}"))
        heads[layer] = (kind, head.export())
    return heads


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


def _lm_head(backbone: Backbone) -> Tensor:
    weight = backbone.head.weight
    if weight is None:
        raise BundleError("dtype", "heads cannot be trained against packed weights", "Load the teacher in float32")
    return weight


def _command(
    checkpoint: Checkpoint,
    texts: Sequence[Path],
    layers: Sequence[int],
    kind: str,
    out: Path,
    seconds: float | None,
    steps: int | None,
    seed: int,
    tokens: int,
) -> str:
    length = f"--seconds {seconds:g}" if seconds is not None else f"--steps {steps}"
    data = " ".join(f"--text {path}" for path in texts)
    return (
        f"helios tune --model file://{checkpoint.path} {data} --layers {','.join(map(str, layers))} --kind {kind}"
        f" --out {out} {length} --seed {seed} --tokens {tokens}"
    )
