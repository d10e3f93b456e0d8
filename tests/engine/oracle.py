"""What the engine is held against: transformers, and the plain loop of `helios_server.engine.offline`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from helios_server.engine.offline import NEAR_TIE, Shelf, first_difference
from helios_server.engine.request import FinishedEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.models.checkpoint import Checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel


@lru_cache(maxsize=1)
def _transformers(path: Path, layers: int, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path, num_hidden_layers=layers, dtype=dtype).eval()


def forget() -> None:
    """The model that is kept: a worker runs many files, and the real one takes half a GiB."""
    _transformers.cache_clear()


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
    """The plain loop over models and bundles (uri by digest) that are loaded once. An answer that it came to
    is not computed again: many tests ask the same of the same model."""

    def __init__(self, dtype: str | None, bundles: dict[str, str] | None = None) -> None:
        self._shelf = Shelf(bundles or {}, dtype)
        self._known: set[tuple[Any, ...]] = set()

    def check(
        self, prompt: tuple[int, ...], event: FinishedEvent, sampling: SamplingParams | None = None
    ) -> None:
        """An answer equals the plain loop's along its spans, but for near-ties."""
        sampling = sampling or SamplingParams()
        noise = "" if sampling.greedy else event.request_id
        answer = noise, prompt, sampling, event.spans, event.output_ids
        if answer in self._known:
            return
        asked = event.request_id, prompt, sampling, event.spans
        assert first_difference(self._shelf, *asked, event.output_ids) is None, event.spans
        self._known.add(answer)
