"""What each precision costs in quality, on the real model and text that it is not known to have seen.

SmolLM2's layers come from a file of 4 bits in groups of 32, a unit and a minimum each: int4, which has such
groups, is lossless for them by construction (it costs what the head costs), and says nothing of other models.
So it is measured on the same model with its weights moved off those grids too, which computes what it did.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_contract.serves import Precision
from helios_server.exits.data import prompts
from helios_server.exits.scoring import score
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.sizes import LONG

WINDOWS, TOKENS = (24, 256) if LONG else (2, 128)
WITHIN = 0.2 if LONG else 1.0
"""Points, of the figures below, which are of 24 windows of 256 tokens."""
FIGURES = {
    Precision("int8", "auto"): (99.95, 99.95),
    Precision("auto", "int8"): (99.96, 99.96),
    Precision("int8", "int8"): (99.91, 99.91),
}
"""Percent on prose and on code."""
DOMAINS = ("prose", "code")


@pytest.fixture(scope="module")
def smollm2() -> Checkpoint:
    return Checkpoint.open(ensure_smollm2())


@pytest.fixture(scope="module")
def windows(smollm2: Checkpoint) -> dict[str, Tensor]:
    """By domain, [WINDOWS, TOKENS]: held-out passages, one after the other."""
    tokenizer, found = Tokenizer.open(smollm2.path), dict[str, Tensor]()
    for domain in DOMAINS:
        ids = list[int]()
        for text in prompts(domain, 8 * WINDOWS, seed=1):
            ids += tokenizer.encode(text)
        assert len(ids) >= WINDOWS * TOKENS
        found[domain] = torch.tensor(ids[: WINDOWS * TOKENS]).view(WINDOWS, TOKENS)
    return found


@torch.inference_mode()
def bits(checkpoint: Checkpoint, windows: dict[str, Tensor], precision: Precision) -> list[float]:
    """Of all tokens but the first of each window, by domain."""
    backbone, totals = Backbone.load(checkpoint, 30, max_context=TOKENS, precision=precision), list[float]()
    for rows in windows.values():
        total = 0.0
        for batch in rows.split(4):
            step = whole_sequences(backbone.layout, [TOKENS] * len(batch))
            hidden = backbone.run_layers(backbone.embed(batch.flatten(), step.positions), 0, 30, step)
            kept = hidden.view(len(batch), TOKENS, -1)[:, :-1].flatten(0, 1)
            total += float(score(backbone, backbone.final_norm, kept, batch[:, 1:].flatten()).bits.sum())
        totals.append(total)
    return totals


def percent(reference: list[float], found: list[float]) -> list[float]:
    return [100 * one / other for one, other in zip(reference, found, strict=True)]


@pytest.fixture(scope="module")
def reference(smollm2: Checkpoint, windows: dict[str, Tensor]) -> list[float]:
    return bits(smollm2, windows, Precision())


@pytest.mark.long
@pytest.mark.parametrize("precision", FIGURES if LONG else [Precision("int8", "int8")], ids=str)
def test_int8_costs_what_was_measured(
    smollm2: Checkpoint, windows: dict[str, Tensor], reference: list[float], precision: Precision
) -> None:
    found = percent(reference, bits(smollm2, windows, precision))
    print(precision, found)
    assert found == pytest.approx(FIGURES[precision], abs=WITHIN)


def off_its_grids(source: Checkpoint, target: Path) -> Path:
    """The same function by other weights: norms are folded into what reads them, and features that only two
    matrices know are scaled in one and unscaled in the other."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: t.float() for name, t in load_file(source.path / "model.safetensors").items()}
    config = source.config
    group = config.num_heads // config.num_kv_heads

    def scales(size: int) -> Tensor:
        return 0.7 + 0.6 * torch.rand(size, generator=generator)

    for layer in range(config.num_layers):
        at = f"model.layers.{layer}"
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            weight = tensors[f"{at}.{norm}.weight"]
            for reader in readers:
                tensors[f"{at}.{reader}.weight"] *= weight
            tensors[f"{at}.{norm}.weight"] = torch.ones_like(weight)
        inner, values = scales(config.intermediate_size), scales(config.kv_size)
        tensors[f"{at}.mlp.up_proj.weight"] *= inner[:, None]
        tensors[f"{at}.mlp.down_proj.weight"] /= inner
        tensors[f"{at}.self_attn.v_proj.weight"] *= values[:, None]
        of_queries = values.view(config.num_kv_heads, 1, -1).expand(-1, group, -1).flatten()
        tensors[f"{at}.self_attn.o_proj.weight"] /= of_queries
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((source.path / name).read_bytes())
    return target


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it takes minutes")
def test_int4_costs_little_on_the_grids_it_came_from_and_more_off_them(
    smollm2: Checkpoint, windows: dict[str, Tensor], reference: list[float], tmp_path: Path
) -> None:
    moved = Checkpoint.open(off_its_grids(smollm2, tmp_path))
    same = percent(reference, bits(moved, windows, Precision()))
    assert same == pytest.approx([100, 100], abs=0.05)
    on = percent(reference, bits(smollm2, windows, Precision("int4")))
    off = percent(reference, bits(moved, windows, Precision("int4")))
    print("int4 on its grids", on, "off them", off, "floats off them", same)
    assert on == pytest.approx([98.4, 98.4], abs=0.5)
    assert off == pytest.approx([89.3, 82.2], abs=3)
