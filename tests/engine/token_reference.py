"""Per-token early exit, written plainly over transformers' own layers: one token at a time, no batch.

What the engine's exit mode `token` is held against. A layer that a token skips is called with the state that
the token left with, and what it returns is thrown away: its keys and values are then in the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache


@dataclass
class Answer:
    """Of every token of the output: its id, the layers that it comes from, and its confidence there.

    keys, values: by layer, [kv_heads, tokens, head_dim], of all tokens but the output's last.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class Reference:
    """A model of any family, whose tokens leave after as many layers as it is told."""

    def __init__(self, path: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        inner = self._model.model
        self._layers = getattr(inner, "decoder", inner).layers
        self._depth = len(self._layers)
        for index, layer in enumerate(self._layers):
            layer.forward = self._leaving(index, layer.forward)

    def _leaving(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(hidden: Tensor, *args: Any, **options: Any) -> Any:
            state = hidden.clone()
            after = forward(hidden, *args, **options)
            if index < self._depth:
                return after
            return (state, *after[1:]) if isinstance(after, tuple) else state

        return call

    @torch.inference_mode()
    def answer(self, prompt: Sequence[int], tokens: int, exits: Sequence[int], threshold: float) -> Answer:
        """Greedy. exits: below full depth, ascending, with the model's own norm and head."""
        answer, cache = Answer(), DynamicCache(config=self._model.config)
        if prompt[:-1]:
            self._run(prompt[:-1], cache, len(self._layers))
        token = prompt[-1]
        for _ in range(tokens):
            for depth in (*exits, len(self._layers)):
                tried = copy.deepcopy(cache)
                chances = self._run([token], tried, depth).softmax(-1)
                if depth == len(self._layers) or float(chances.max()) >= threshold:
                    break
            cache, token = tried, int(chances.argmax())
            answer.ids.append(token)
            answer.depths.append(depth)
            answer.confidences.append(float(chances.max()))
        answer.keys = [layer.keys[0] for layer in cache.layers]
        answer.values = [layer.values[0] for layer in cache.layers]
        return answer

    def _run(self, ids: Sequence[int], cache: DynamicCache, depth: int) -> Tensor:
        """Logits of the last token, which leaves after `depth` layers, as all of `ids` do."""
        self._depth = depth
        out = self._model(input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True)
        logits: Tensor = out.logits[0, -1]
        return logits
