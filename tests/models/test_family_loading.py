"""OPT and Gemma 3 as they are loaded: what is read and resident, each row alone, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.norm import LayerNorm, Norm, OffsetRmsNorm, RmsNorm
from helios_server.models.rows import Stretch, rows_of
from helios_server.models.slabs import Scratch
from helios_server.models.step import Step, whole_sequences
from torch import Tensor

from tests.checkpoints import FAMILIES, HIDDEN, make_checkpoint
from tests.models.test_families import FULL, NEW
from tests.models.test_loader import logits, stored_bytes

PLAIN = tuple(family for family in FAMILIES if family not in NEW)


class TestLoading:
    @pytest.mark.parametrize("family", NEW)
    @pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
    def test_resident_bytes_and_what_is_computed(self, tmp_path: Path, family: str, dtype: str) -> None:
        checkpoint = Checkpoint.open(make_checkpoint(tmp_path, family, layers=3))
        exact = logits(Backbone.load(checkpoint, 3, dtype="float64"), torch.arange(40))
        by_depth = [Backbone.load(checkpoint, layers, dtype=dtype) for layers in (1, 2, 3)]
        for layers, backbone in enumerate(by_depth, start=1):
            assert backbone.resident_bytes == backbone.fixed_bytes + layers * backbone.layer_bytes
        error = (logits(by_depth[-1], torch.arange(40)) - exact).abs().max() / exact.abs().max()
        assert error < {"float64": 1e-9, "float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}[dtype]

    @pytest.mark.parametrize("family", NEW)
    @pytest.mark.parametrize("layers", [1, 4])
    def test_reads_the_layers_below_the_budget_and_no_others(
        self, tmp_path: Path, family: str, layers: int
    ) -> None:
        checkpoint = Checkpoint.open(make_checkpoint(tmp_path, family, layers=4, dtype=torch.float16))
        Backbone.load(checkpoint, layers)
        above = sum(
            checkpoint.entry(name).nbytes
            for name in checkpoint.names
            if any(f".layers.{layer}." in name for layer in range(layers, 4))
        )
        assert checkpoint.bytes_read == stored_bytes(checkpoint, 4) - above

    def test_positions_are_read_as_far_as_they_are_served(self, tmp_path: Path) -> None:
        checkpoint = Checkpoint.open(make_checkpoint(tmp_path, "opt", layers=1))
        short, whole = (Backbone.load(checkpoint, 1, max_context=limit) for limit in (32, None))
        ids = torch.arange(32)
        assert torch.equal(short.embed(ids, ids), whole.embed(ids, ids))
        assert whole.fixed_bytes - short.fixed_bytes == (512 - 32) * HIDDEN * 2
        with pytest.raises(IndexError):
            short.embed(ids[:1], torch.tensor([32]))

    def test_a_prompt_in_stretches_is_the_prompt_at_once(self, tmp_path: Path) -> None:
        """Through a window that is shorter than a stretch, and one that reaches over several."""
        backbone = Backbone.load(
            Checkpoint.open(make_checkpoint(tmp_path, "gemma3_text")), 4, dtype="float64"
        )
        ids = torch.arange(100)
        step = whole_sequences(backbone.layout, [100])
        whole = backbone.run_layers(backbone.embed(ids, ids), 0, 4, step)
        for sizes in ([40, 59, 1], [7] * 14 + [2], [1] * 100):
            slabs, parts, start = Scratch(backbone.layout, [100], shared=False), list[Tensor](), 0
            for size in sizes:
                step = Step(rows_of([Stretch(start, size, slabs.pages_of[0])], 16), slabs)
                part = slice(start, start + size)
                parts.append(backbone.run_layers(backbone.embed(ids[part], ids[part]), 0, 4, step))
                start += size
            assert (torch.cat(parts) - whole).abs().max() < 1e-9

    def test_fingerprints_tell_what_is_computed(self, tmp_path: Path) -> None:
        variants: dict[str, tuple[str, dict[str, Any]]] = {
            "opt": ("opt", {}),
            "gemma": ("gemma3_text", {}),
            "scalar": ("gemma3_text", {"query_pre_attn_scalar": 8}),
            "period": ("gemma3_text", {"sliding_window_pattern": 3}),
            "types": ("gemma3_text", {"layer_types": [FULL] * 4}),
            "base": ("gemma3_text", {"rope_local_base_freq": 1e3}),
            "window": ("gemma3_text", {"sliding_window": 99}),
        }
        paths = {
            name: make_checkpoint(tmp_path / name, family, **fields)
            for name, (family, fields) in variants.items()
        }
        assert len({Checkpoint.open(path).fingerprint for path in paths.values()}) == len(variants)

    def test_who_may_take_llamas_kernels(self, tmp_path: Path) -> None:
        made = {family: Checkpoint.open(make_checkpoint(tmp_path / family, family)) for family in FAMILIES}
        plain = {family: checkpoint.config.plain_block for family, checkpoint in made.items()}
        assert plain == dict.fromkeys(PLAIN, True) | dict.fromkeys(NEW, False)
        assert not any(Backbone.load(made[family], 1).is_native for family in NEW)


NORMS: list[Norm] = [
    RmsNorm(torch.rand(HIDDEN, dtype=torch.float64) + 0.5, 1e-5),
    OffsetRmsNorm(torch.rand(HIDDEN, dtype=torch.float64) - 0.5, 1e-5),
    LayerNorm(torch.rand(HIDDEN, dtype=torch.float64) + 0.5, torch.rand(HIDDEN, dtype=torch.float64), 1e-5),
]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_what_stands_before_a_norms_scale_has_length_one(norm: Norm) -> None:
    x = torch.randn(50, HIDDEN, dtype=torch.float64)
    bare = norm.unscaled(norm(x))
    assert bare.pow(2).mean(-1) == pytest.approx(torch.ones(50), abs=1e-3)
    assert torch.allclose(norm.wide()(x.float()).double(), norm(x), atol=1e-5)
    assert norm.wide()(x.float()).dtype == torch.float32
