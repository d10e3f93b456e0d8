"""CTranslate2, by its own converter. It has no 16-bit format on a CPU."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine.adapter import TORCH_AVX2, Adapter, Ids, Peer, Setting, Variant


class CTranslate2:
    def __init__(self, setting: Setting) -> None:
        import ctranslate2

        self._generator: Any = ctranslate2.Generator(
            str(setting.folder),
            device="cpu",
            compute_type=setting.variant,
            inter_threads=1,
            intra_threads=setting.threads,
        )
        # The format and its parameters are named by tokens, not by ids.
        self._words = json.loads((setting.folder / "vocabulary.json").read_text(encoding="utf-8"))
        weights = "int8 weights a row, int8 activations a token" if setting.variant == "int8" else "float32"
        self.numerics = f"{weights} in products, float32 elsewhere"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        results = self._generator.generate_batch(
            self._as_words(prompts),
            max_length=new,
            min_length=new,
            beam_size=1,
            end_token=[],
            include_prompt_in_result=False,
        )
        return [list(result.sequences_ids[0]) for result in results]

    def score(self, windows: Sequence[Ids]) -> float:
        results = self._generator.score_batch(self._as_words(windows))
        return -sum(sum(result.log_probs) for result in results) / math.log(2)

    def _as_words(self, rows: Sequence[Ids]) -> list[list[str]]:
        return [[self._words[token] for token in row] for row in rows]


def _prepare(model: Path, folder: Path, variant: str) -> None:
    command = [str(Path(sys.executable).parent / "ct2-transformers-converter"), "--force"]
    command += ["--model", str(model), "--quantization", variant, "--output_dir", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _open(setting: Setting) -> Adapter:
    return CTranslate2(setting)


PEER = Peer(
    title="CTranslate2",
    variants={"int8": Variant(8), "float32": Variant(32, default=False)},
    open=_open,
    requirements=("torch", "transformers==5.23.0", "ctranslate2==4.8.5"),
    pinned={"avx2": TORCH_AVX2 | {"CT2_FORCE_CPU_ISA": "AVX2"}},
    prepare=_prepare,
)
