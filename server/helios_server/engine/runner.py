"""Runs one planned step: embeddings, the layers in segments between depths, heads, logits, the chosen tokens.

Called by the engine thread, by the profiler's timing and by nothing else. It must not schedule: it runs
exactly the rows that it is given, and everything it needs comes with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from helios_server.engine.heads import Heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.paged_attention import PagedAttention, Stretch
from helios_server.engine.sampler import Choice, choose
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.errors import RequestFailed
from helios_server.models.backbone import Backbone


class Capture(Protocol):
    """Wants the hidden states of a prompt. layers: after which; tokens: of the prompt's beginning."""

    @property
    def layers(self) -> Many[int]: ...

    @property
    def tokens(self) -> int: ...

    def take(self, layer: int, start: int, hidden: Tensor) -> None:
        """hidden: [n, hidden_size], of prompt tokens start, start + 1, ..."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What became of the rows that sampled, in the order of the plan: a token, or why there is none."""

    outcomes: Mapping[Sequence, Choice | RequestFailed]


class Runner:
    """Holds what a step reads: the backbone's layers, the heads, the KV pool.

    `digest`: of the bundle that serves.
    """

    def __init__(self, backbone: Backbone, heads: Heads, pool: KvPool, digest: str) -> None:
        self.backbone = backbone
        self.heads = heads
        self.pool = pool
        self.digest = digest

    @torch.inference_mode()
    def run(self, plan: StepPlan, captures: Mapping[Sequence, Capture] | None = None) -> StepResult:
        """Runs a plan, which has at least one row. captures: whose hidden states to keep on the way."""
        batch = _Batch(plan, self.pool, captures or {})
        hidden = self.backbone.embed(batch.ids)
        rope = self.backbone.rope(batch.positions)
        below, attention, normed = 0, None, list[Tensor]()
        for depth in batch.depths:
            alive = batch.tokens_at(depth)
            if attention is None or alive < len(hidden):
                hidden, rope = hidden[:alive], (rope[0][:alive], rope[1][:alive])
                attention = PagedAttention(self.pool, batch.slots[:alive], batch.stretches(alive))
            hidden = self.backbone.run_layers(hidden, below, depth, rope, attention.attend_for)
            below = depth
            batch.capture(depth, hidden)
            if ending := batch.sampled_at(depth):
                head = self.heads.at(self.digest, depth)
                normed.append(head.apply(hidden[batch.index(ending)]))
        sampled = [sequence for depth in batch.depths for sequence in batch.sequences_at(depth)]
        if not sampled:
            return StepResult({})
        logits = self.backbone.choices(torch.cat(normed))
        chosen = choose(logits, sampled, self.backbone.config.eos_token_ids)
        by_sequence = dict(zip(sampled, chosen, strict=True))
        return StepResult({row.sequence: by_sequence[row.sequence] for row in plan.rows if row.samples})


class _Batch:
    """A plan laid out for the layers: deepest rows first, so that each segment runs on a prefix of the
    tokens.

    ids, positions, slots: [T] int64. depths: after which layers something happens, ascending.
    """

    def __init__(self, plan: StepPlan, pool: KvPool, captures: Mapping[Sequence, Capture]) -> None:
        self._pool = pool
        self._rows = sorted(plan.rows, key=lambda row: (-row.sequence.depth, row.count > 1, row.start))
        self._firsts = _offsets(self._rows)
        self._captures = [
            (first, row, captures[row.sequence])
            for first, row in zip(self._firsts, self._rows, strict=True)
            if row.sequence in captures and row.start < captures[row.sequence].tokens
        ]
        self.ids = self._tensor([token for row in self._rows for token in _ids(row)])
        self.positions = self._tensor([place for row in self._rows for place in _places(row)])
        self.slots = self._tensor([slot for row in self._rows for slot in _slots(row, pool.page_tokens)])
        ends = {row.sequence.depth for row in self._rows}
        wanted = {
            layer
            for _, row, capture in self._captures
            for layer in capture.layers
            if layer <= row.sequence.depth
        }
        self.depths = sorted(ends | wanted)

    def tokens_at(self, depth: int) -> int:
        """Tokens whose sequence runs at least `depth` layers."""
        return sum(row.count for row in self._rows if row.sequence.depth >= depth)

    def stretches(self, tokens: int) -> list[Stretch]:
        """The rows that make up the first `tokens` tokens."""
        return [
            Stretch(first, row.count, stop := row.start + row.count, self._pages(row, stop))
            for first, row in zip(self._firsts, self._rows, strict=True)
            if first < tokens
        ]

    def sampled_at(self, depth: int) -> list[int]:
        """Indices of the tokens that yield a new one after `depth` layers."""
        return [
            first + row.count - 1
            for first, row in zip(self._firsts, self._rows, strict=True)
            if row.samples and row.sequence.depth == depth
        ]

    def sequences_at(self, depth: int) -> list[Sequence]:
        """Whose tokens those are."""
        return [row.sequence for row in self._rows if row.samples and row.sequence.depth == depth]

    def capture(self, depth: int, hidden: Tensor) -> None:
        """Hands hidden: [T, hidden_size] after `depth` layers to those who want it."""
        for first, row, capture in self._captures:
            if depth in capture.layers and depth <= row.sequence.depth:
                count = min(row.count, capture.tokens - row.start)
                capture.take(depth, row.start, hidden[first : first + count])

    def index(self, tokens: list[int]) -> Tensor:
        return self._tensor(tokens)

    def _pages(self, row: Row, stop: int) -> list[int]:
        return row.sequence.pages[: -(-stop // self._pool.page_tokens)]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).to(self._pool.device)


def _offsets(rows: Many[Row]) -> list[int]:
    offsets, total = [], 0
    for row in rows:
        offsets.append(total)
        total += row.count
    return offsets


def _ids(row: Row) -> tuple[int, ...]:
    return row.sequence.tokens(row.start, row.start + row.count)


def _places(row: Row) -> range:
    return range(row.start, row.start + row.count)


def _slots(row: Row, page_tokens: int) -> Iterator[int]:
    pages = row.sequence.pages
    for place in _places(row):
        yield pages[place // page_tokens] * page_tokens + place % page_tokens
