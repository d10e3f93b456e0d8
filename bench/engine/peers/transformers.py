"""Hugging Face transformers: `generate` of the model as it is, with torch's attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.engine.adapter import TORCH_AVX2, Adapter, Ids, Peer, Setting, Variant


class Transformers:
    def __init__(self, setting: Setting) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(setting.threads)
        self._torch: Any = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            setting.model, dtype=getattr(torch, setting.variant), attn_implementation="sdpa"
        ).eval()
        self._model.generation_config.eos_token_id = None  # nothing ends a row
        capability = torch.backends.cpu.get_cpu_capability()
        self.numerics = f"{setting.variant} weights, activations, keys and values; torch on {capability}"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        ids = self._torch.tensor(prompts)
        with self._torch.inference_mode():
            made = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        return [list(row) for row in made[:, ids.shape[1] :].tolist()]

    def score(self, windows: Sequence[Ids]) -> float:
        torch, nats = self._torch, 0.0
        for window in windows:
            ids = torch.tensor([window])
            with torch.inference_mode():
                logits = self._model(ids).logits[0, :-1].double()
            nats -= float(logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum())
        return nats / math.log(2)


def _open(setting: Setting) -> Adapter:
    return Transformers(setting)


PEER = Peer(
    title="transformers",
    variants={"bfloat16": Variant(16), "float32": Variant(32, default=False)},
    open=_open,
    requirements=("torch", "transformers==5.23.0"),
    pinned={"avx2": TORCH_AVX2},
)
