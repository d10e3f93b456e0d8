"""OpenVINO GenAI: its pipeline with continuous batching, on what optimum-intel exports."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine.adapter import Adapter, Ids, Peer, Setting, Variant


class OpenVINO:
    def __init__(self, setting: Setting) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self._np: Any = np
        self._openvino: Any = openvino
        self._genai: Any = openvino_genai
        self._properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": setting.threads}
        if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2":  # it would choose bf16 by what the processor has
            self._properties["INFERENCE_PRECISION_HINT"] = "f32"
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_seqs = setting.rows
        scheduler.max_num_batched_tokens = 2048
        scheduler.cache_size = _gibibytes(setting)
        self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
            str(setting.folder), scheduler, "CPU", self._properties
        )
        self._folder = setting.folder
        self._scorer: Any = None
        compiled = self._compiled()
        computed = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        kept = compiled.get_property("KV_CACHE_PRECISION").to_string()
        self.numerics = f"{setting.variant} weights, computed in {computed}, keys and values {kept}"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos = True
        config.do_sample = False
        ids = [self._openvino.Tensor(self._np.array([prompt], dtype=self._np.int64)) for prompt in prompts]
        results = self._pipeline.generate(ids, [config] * len(ids))
        return [list(result.m_generation_ids[0]) for result in results]

    def score(self, windows: Sequence[Ids]) -> float:
        """By the runtime under the pipeline, with the same model and properties."""
        if self._scorer is None:
            self._scorer = self._compiled().create_infer_request()
        return sum(self._bits(window) for window in windows)

    def _bits(self, window: Ids) -> float:
        np = self._np
        self._scorer.reset_state()
        ids = np.array([window], dtype=np.int64)
        places = np.arange(len(window), dtype=np.int64)[None]
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": places}
        given["beam_idx"] = np.zeros(1, dtype=np.int32)
        logits = self._scorer.infer(given)["logits"][0, :-1].astype(np.float64)
        highest = logits.max(-1)
        totals = np.log(np.exp(logits - highest[:, None]).sum(-1)) + highest
        return float((totals - logits[np.arange(len(window) - 1), ids[0, 1:]]).sum()) / math.log(2)

    def _compiled(self) -> Any:
        core = self._openvino.Core()
        return core.compile_model(str(self._folder / "openvino_model.xml"), "CPU", self._properties)


def _gibibytes(setting: Setting) -> int:
    """That hold keys and values of all rows, in 16 bits."""
    config = json.loads((setting.model / "config.json").read_text(encoding="utf-8"))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token = 2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head
    return -(-setting.rows * (setting.tokens + 32) * token // 2**30)


def _prepare(model: Path, folder: Path, variant: str) -> None:
    command = [str(Path(sys.executable).parent / "optimum-cli"), "export", "openvino"]
    command += ["--model", str(model), "--task", "text-generation-with-past", "--weight-format", variant]
    subprocess.run([*command, str(folder)], check=True, stdout=sys.stderr)


def _open(setting: Setting) -> Adapter:
    return OpenVINO(setting)


PEER = Peer(
    title="OpenVINO GenAI",
    variants={"fp16": Variant(16), "int8": Variant(8)},
    open=_open,
    requirements=("torch", "openvino-genai==2026.4.1.0", "optimum-intel==2.2.0", "nncf==3.4.0"),
    unwanted=("torchvision",),  # built for a GPU's torch, and transformers imports whatever is there
    pinned={"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}},
    prepare=_prepare,
)
