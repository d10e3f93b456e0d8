"""What the engine is held against: transformers, and the plain loop of `helios_server.engine.offline`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from helios_server.engine.offline import Weights, generate
from helios_server.engine.request import FinishedEvent, Served
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.exits.head import BareHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

NEAR_TIE = 1e-3
"""Of two logits: closer than that, float32 sums in another order may swap them."""


@cache
def _transformers(path: Path, layers: int, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path, num_hidden_layers=layers, dtype=dtype).eval()


@torch.inference_mode()
def transformers_greedy(
    path: Path, prompt: tuple[int, ...], tokens: int, layers: int, dtype: torch.dtype
) -> list[int]:
    """Greedy continuation by `generate`, which nothing but the length ends."""
    model = _transformers(path, layers, dtype)
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return out[0, len(prompt) :].tolist()


@torch.inference_mode()
def same_but_for_near_ties(
    path: Path, prompt: tuple[int, ...], output: list[int], dtype: torch.dtype
) -> None:
    """Teacher-forced on the output: transformers chooses the same token, but for near-ties."""
    layers = Checkpoint.open(path).config.num_layers
    logits = _transformers(path, layers, dtype)(torch.tensor([[*prompt, *output]])).logits[
        0, len(prompt) - 1 : -1
    ]
    for place, (row, token) in enumerate(zip(logits, output, strict=True)):
        best = row.topk(2)
        near = float(best.values[0] - best.values[1]) < NEAR_TIE
        assert token == int(best.indices[0]) or (near and token == int(best.indices[1])), place


class Library:
    """Backbones and heads for the plain loop, at full depth, loaded once."""

    def __init__(self, dtype: str, bundles: dict[str, str] | None = None) -> None:
        self._dtype = dtype
        self._bundles = bundles or {}
        self._backbones: dict[str, Backbone] = {}

    def resolve(self, served: Served) -> Weights:
        if served.model_uri not in self._backbones:
            checkpoint = Checkpoint.open(served.model_uri.removeprefix("file://"))
            self._backbones[served.model_uri] = Backbone.load(
                checkpoint, checkpoint.config.num_layers, dtype=self._dtype
            )
        backbone = self._backbones[served.model_uri]
        assert served.backbone == backbone.checkpoint.fingerprint
        if not served.exits_digest:
            return Weights(backbone, BareHead(backbone))
        ref = BundleRef(self._bundles[served.exits_digest], served.exits_digest)
        return Weights(backbone, open_bundle(ref, backbone.checkpoint).head(served.depth, backbone))

    def check(
        self, prompt: tuple[int, ...], event: FinishedEvent, sampling: SamplingParams | None = None
    ) -> None:
        """An answer equals the plain loop's along its spans, but for near-ties."""
        sampling = sampling or SamplingParams()
        output = event.output_ids
        offline = generate(
            self.resolve, event.request_id, prompt, sampling, event.spans, len(output), forced=output
        )
        for place, (mine, theirs) in enumerate(zip(output, offline.token_ids, strict=True)):
            assert mine == theirs or offline.margins[place] < NEAR_TIE, (place, event.spans)
