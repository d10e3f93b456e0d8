"""The decoder block against transformers, on generated float64 checkpoints of every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.checkpoints import FAMILIES, HEAD_DIM, VOCAB, make_checkpoint

VARIANTS = [
    *[(family, tied, {}) for family in FAMILIES for tied in (True, False)],
    ("llama", True, {"attention_bias": True, "mlp_bias": True}),
    ("llama", True, {"num_key_value_heads": 4}),
    ("llama", True, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    (
        "llama",
        False,
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    ("qwen3", True, {"attention_bias": True}),
    ("opt", True, {"enable_bias": False}),
    ("opt", False, {"num_attention_heads": 2, "ffn_dim": 96}),
    ("gemma3_text", True, {"attention_bias": True, "query_pre_attn_scalar": HEAD_DIM}),
    (
        "gemma3_text",
        True,
        {"sliding_window_pattern": 3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
]


def run(backbone: Backbone, sequences: list[Tensor], layers: int) -> list[Tensor]:
    lengths = [len(sequence) for sequence in sequences]
    step = whole_sequences(backbone.layout, lengths)
    hidden = backbone.run_layers(backbone.embed(torch.cat(sequences), step.positions), 0, layers, step)
    return list(backbone.logits(backbone.final_norm(hidden)).split(lengths))


@pytest.mark.parametrize(("family", "tied", "options"), VARIANTS)
def test_logits_equal_transformers_at_full_depth_and_at_every_budget(
    tmp_path: Path, family: str, tied: bool, options: dict[str, object]
) -> None:
    path = make_checkpoint(tmp_path, family, layers=3, tied=tied, seed=1, **options)
    generator = torch.Generator().manual_seed(2)
    sequences = [torch.randint(VOCAB, (length,), generator=generator) for length in (37, 5, 18)]
    for budget in (1, 3):
        backbone = Backbone.load(Checkpoint.open(path), budget, dtype="float64")
        oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, num_hidden_layers=budget)
        for ours, sequence in zip(run(backbone, sequences, budget), sequences, strict=True):
            with torch.no_grad():
                theirs = oracle(sequence[None]).logits[0]
            assert ours.dtype == torch.float64
            assert (ours - theirs).abs().max() < 1e-8
