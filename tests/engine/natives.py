"""The native path under each instruction set that can be tested here: what its tests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helios_contract.serves import REFERENCE, Precision
from helios_server.engine.kv_pool import KvPool
from helios_server.models import linear
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.linear import default_dtype
from helios_server.models.rows import RowBuffers, Stretch
from helios_server.models.step import Step
from helios_server.native.library import library
from torch import Tensor

from tests.native.libraries import kernels

FORMATS = ("float16", "bfloat16")
every_format = pytest.mark.parametrize("dtype", FORMATS)
needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels on this machine")
TORCH = "torch"
"""In place of an instruction set."""


@contextmanager
def computing_with(isa: str) -> Iterator[None]:
    """All that is loaded meanwhile has this instruction set, and as many threads as torch."""
    found = None if isa == TORCH else kernels(isa, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "library", lambda: found)
        patch.setattr(linear, "default_dtype", default_dtype)  # whatever the session is told of `auto`
        yield


def load(path: Path, dtype: str, layers: int | None = None, precision: Precision = REFERENCE) -> Backbone:
    """All layers, or the first few, natively."""
    checkpoint = Checkpoint.open(path)
    depth = layers or checkpoint.config.num_layers
    backbone = Backbone.load(checkpoint, depth, dtype=dtype, precision=precision)
    assert backbone.is_native
    return backbone


@dataclass(frozen=True)
class Part:
    """Of a step: the next `count` tokens of sequence number `index`."""

    index: int
    count: int


class Crowd:
    """Sequences of given ids whose pages lie in disorder over what others left there."""

    def __init__(self, backbone: Backbone, prompts: Sequence[Tensor], seed: int) -> None:
        self._backbone = backbone
        self._prompts = prompts
        needed = [-(-len(ids) // 16) for ids in prompts]
        order = torch.randperm(sum(needed), generator=torch.Generator().manual_seed(seed)).tolist()
        self._pages = [[order.pop() for _ in range(count)] for count in needed]
        self._pool = KvPool(backbone.config, backbone.numerics, backbone.num_loaded, sum(needed), 16)
        for layer in range(backbone.num_loaded):
            slab = self._pool.slab(layer)
            slab.fill_(float("nan") if slab.is_floating_point() else -1)  # such a unit is NaN
        self._rows = RowBuffers(16)
        self._done = [0] * len(prompts)

    def prompt(self, index: int) -> Tensor:
        """The ids of a sequence, of which those that have not been read may still be changed."""
        return self._prompts[index]

    @torch.inference_mode()
    def run(self, steps: Sequence[Sequence[Part]]) -> list[Tensor]:
        """The logits of every token of each sequence, [length, vocab_size]."""
        found: list[list[Tensor]] = [[] for _ in self._prompts]
        for parts in steps:
            logits = self._step(parts).split([part.count for part in parts])
            for part, rows in zip(parts, logits, strict=True):
                found[part.index].append(rows)
        return [torch.cat(rows) for rows in found]

    def _step(self, parts: Sequence[Part]) -> Tensor:
        backbone, stretches, ids = self._backbone, list[Stretch](), list[Tensor]()
        for part in parts:
            start = self._done[part.index]
            self._done[part.index] += part.count
            stretches.append(Stretch(start, part.count, self._pages[part.index]))
            ids.append(self._prompts[part.index][start : start + part.count])
        step = Step(self._rows.fill(stretches), self._pool)
        hidden = backbone.embed(torch.cat(ids), step.positions)
        hidden = backbone.run_layers(hidden, 0, backbone.num_loaded, step)
        return backbone.logits(backbone.final_norm(hidden))
