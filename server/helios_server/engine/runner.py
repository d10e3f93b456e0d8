"""Runs one planned step: embeddings, the layers in segments between depths, heads, logits, the chosen tokens.

Called by the engine thread, by the profiler's timing and by nothing else. It must not schedule: it runs
exactly the rows that it is given, and everything it needs comes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from helios_server.engine.heads import Heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.sampler import Choice, choose
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.errors import RequestFailed
from helios_server.models.backbone import Backbone
from helios_server.models.rows import RowBuffers, Stretch
from helios_server.models.step import Step


class Capture(Protocol):
    """Wants the hidden states of a prompt. layers: after which; tokens: of the prompt's beginning."""

    @property
    def layers(self) -> Many[int]: ...

    @property
    def tokens(self) -> int: ...

    def take(self, layer: int, start: int, hidden: Tensor) -> None:
        """hidden: [n, hidden_size], of prompt tokens start, start + 1, ...; the next layer overwrites it."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What became of the rows that sampled, in the order of the plan: a token, or why there is none.

    left: after how many layers, where rows left one by one; None: every row ran at its sequence's depth.
    """

    outcomes: Mapping[Sequence, Choice | RequestFailed]
    left: Mapping[Sequence, int] | None = None

    def depth_of(self, sequence: Sequence) -> int:
        """Layers that its new token comes from."""
        return sequence.depth if self.left is None else self.left[sequence]


class Runner:
    """Holds what a step reads: the backbone's layers, the heads, the KV pool.

    `digest`: of the bundle that serves.
    """

    def __init__(self, backbone: Backbone, heads: Heads, pool: KvPool, digest: str) -> None:
        self.backbone = backbone
        self.heads = heads
        self.pool = pool
        self.digest = digest
        self._rows = RowBuffers(pool.layout.page_tokens)
        self._ids = np.empty(0, np.int64)

    @torch.inference_mode()
    def run(self, plan: StepPlan, captures: Mapping[Sequence, Capture] | None = None) -> StepResult:
        """Runs a plan, which has at least one row. captures: whose hidden states to keep on the way."""
        batch = _Batch(plan, captures or {})
        step = Step(self._rows.fill(batch.stretches), self.pool)
        hidden = self.backbone.embed(self._tensor(self._ids_of(batch)), step.positions)
        below, normed = 0, list[Tensor]()
        for depth in batch.depths:
            step = step.first(batch.tokens_at(depth))
            hidden = self.backbone.run_layers(hidden[: step.rows.tokens], below, depth, step)
            below = depth
            batch.capture(depth, hidden)
            if ending := batch.sampled_at(depth):
                head = self.heads.at(self.digest, depth)
                normed.append(head.apply(self._picked(hidden, ending)))
        sampled = [sequence for depth in batch.depths for sequence in batch.sequences_at(depth)]
        if not sampled:
            return StepResult({})
        logits = self.backbone.choices(normed[0] if len(normed) == 1 else torch.cat(normed))
        eos_ids, kernels = self.backbone.config.eos_token_ids, self.backbone.numerics.library
        chosen = choose(logits, sampled, eos_ids, kernels)
        by_sequence = dict(zip(sampled, chosen, strict=True))
        return StepResult({row.sequence: by_sequence[row.sequence] for row in plan.rows if row.samples})

    def _picked(self, hidden: Tensor, places: Many[int]) -> Tensor:
        """These rows, in order. While all sequences decode they are all rows: nothing is copied."""
        return hidden if len(places) == len(hidden) else hidden[self._tensor(np.array(places))]

    def _ids_of(self, batch: _Batch) -> NDArray[np.int64]:
        """[T] of the step, in an array that persists."""
        if batch.tokens > len(self._ids):
            self._ids = np.empty(max(batch.tokens, 2 * len(self._ids)), np.int64)
        at = 0
        for row in batch.rows:
            ids = row.sequence.tokens(row.start, row.start + row.count)
            self._ids[at : at + row.count] = ids
            at += row.count
        return self._ids[:at]

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.pool.layout.device)


class _Batch:
    """A plan laid out for the layers: deepest rows first, so that each segment runs on a prefix of the
    tokens.

    depths: after which layers something happens, ascending; tokens: of all rows.
    """

    def __init__(self, plan: StepPlan, captures: Mapping[Sequence, Capture]) -> None:
        self.rows = sorted(plan.rows, key=lambda row: (-row.sequence.depth, row.count > 1, row.start))
        self.stretches = [Stretch(row.start, row.count, row.sequence.pages) for row in self.rows]
        self.tokens = plan.tokens
        self._firsts = _offsets(self.rows)
        self._captures = [
            (first, row, captures[row.sequence])
            for first, row in zip(self._firsts, self.rows, strict=True)
            if row.sequence in captures and row.start < captures[row.sequence].tokens
        ]
        ends = {row.sequence.depth for row in self.rows}
        wanted = {
            layer
            for _, row, capture in self._captures
            for layer in capture.layers
            if layer <= row.sequence.depth
        }
        self.depths = sorted(ends | wanted)

    def tokens_at(self, depth: int) -> int:
        """Tokens whose sequence runs at least `depth` layers."""
        return sum(row.count for row in self.rows if row.sequence.depth >= depth)

    def sampled_at(self, depth: int) -> list[int]:
        """Indices of the tokens that yield a new one after `depth` layers."""
        return [
            first + row.count - 1
            for first, row in zip(self._firsts, self.rows, strict=True)
            if row.samples and row.sequence.depth == depth
        ]

    def sequences_at(self, depth: int) -> list[Sequence]:
        """Whose tokens those are."""
        return [row.sequence for row in self.rows if row.samples and row.sequence.depth == depth]

    def capture(self, depth: int, hidden: Tensor) -> None:
        """Hands hidden: [T, hidden_size] after `depth` layers to those who want it."""
        for first, row, capture in self._captures:
            if depth in capture.layers and depth <= row.sequence.depth:
                count = min(row.count, capture.tokens - row.start)
                capture.take(depth, row.start, hidden[first : first + count])


def _offsets(rows: Many[Row]) -> list[int]:
    offsets, total = [], 0
    for row in rows:
        offsets.append(total)
        total += row.count
    return offsets
