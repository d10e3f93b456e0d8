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

    `digest`: of the bundle that serves. Arrays of a step persist to the next one, logits for as many rows as
    have sampled at once.
    """

    def __init__(self, backbone: Backbone, heads: Heads, pool: KvPool, digest: str) -> None:
        self.backbone = backbone
        self.heads = heads
        self.pool = pool
        self.digest = digest
        self._rows = RowBuffers(pool.layout.page_tokens)
        self._on_cpu = pool.layout.device.type == "cpu"
        self._ids = np.empty(0, np.int64)
        self._ids_tensor = torch.from_numpy(self._ids)
        self._room = self._logits = torch.empty(0)

    def run(self, plan: StepPlan, captures: Mapping[Sequence, Capture] | None = None) -> StepResult:
        """Runs a plan, which has at least one row. captures: whose hidden states to keep on the way."""
        if self.backbone.is_native:  # hardly anything is torch's, and its modes are dear to enter and leave
            return self._run(plan, captures or {})
        with torch.inference_mode():
            return self._run(plan, captures or {})

    def _run(self, plan: StepPlan, captures: Mapping[Sequence, Capture]) -> StepResult:
        batch = _Batch(plan, captures)
        step = Step(self._rows.fill(batch.stretches), self.pool)
        positions = step.positions if self.backbone.learns_positions else None
        hidden = self.backbone.embed(self._ids_of(batch), positions)
        below, normed = 0, list[Tensor]()
        for depth in batch.depths:
            if (tokens := batch.tokens_at(depth)) < step.rows.tokens:
                step, hidden = step.first(tokens), hidden[:tokens]
            hidden = self.backbone.run_layers(hidden, below, depth, step)
            below = depth
            batch.capture(depth, hidden)
            if ending := batch.sampled_at(depth):
                head = self.heads.at(self.digest, depth)
                whole = len(ending) == step.rows.tokens  # all decode: nothing is copied
                normed.append(head.apply(hidden if whole else self._picked(hidden, ending)))
        sampled = [sequence for depth in batch.depths for sequence in batch.sequences_at(depth)]
        if not sampled:
            return StepResult({})
        joined = normed[0] if len(normed) == 1 else torch.cat(normed)
        logits = self.backbone.choices(joined, self._room_for_logits(len(sampled)))
        eos_ids, kernels = self.backbone.config.eos_token_ids, self.backbone.numerics.library
        chosen = choose(logits, sampled, eos_ids, kernels)
        by_sequence = dict(zip(sampled, chosen, strict=True))
        return StepResult({row.sequence: by_sequence[row.sequence] for row in plan.rows if row.samples})

    def _picked(self, hidden: Tensor, places: Many[int]) -> Tensor:
        """These rows, in order."""
        return hidden[self._tensor(np.array(places))]

    def _ids_of(self, batch: _Batch) -> Tensor:
        """[T] of the step, in an array that persists while steps have as many tokens."""
        if batch.tokens != len(self._ids):
            self._ids = np.empty(batch.tokens, np.int64)
            self._ids_tensor = torch.from_numpy(self._ids)
        self._ids[:] = batch.ids
        return self._ids_tensor if self._on_cpu else self._ids_tensor.to(self.pool.layout.device)

    def _room_for_logits(self, rows: int) -> Tensor | None:
        """[rows, vocab_size] for the native kernels: the system would give, and empty, so much memory anew in
        each step. None: torch makes its own."""
        if not self.backbone.is_native:
            return None
        if rows != self._logits.shape[0]:
            if rows > self._room.shape[0]:
                most, vocabulary = max(rows, 2 * self._room.shape[0]), self.backbone.config.vocab_size
                self._room = self._logits = torch.empty(0)  # not two at once
                self._room = torch.empty(most, vocabulary)  # rows that none has filled take no memory
            self._logits = self._room[:rows]
        return self._logits

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.pool.layout.device)


class _Batch:
    """A plan laid out for the layers: deepest rows first, so that each segment runs on a prefix of the
    tokens.

    depths: after which layers something happens, ascending; tokens: of all rows; ids: [T] theirs.
    """

    def __init__(self, plan: StepPlan, captures: Mapping[Sequence, Capture]) -> None:
        self.stretches = list[Stretch]()
        self.ids = list[int]()
        self._ends = dict[int, _End]()  # by depth
        self._captures = list[tuple[int, Row, Capture]]()
        wanted = set[int]()
        for row in sorted(plan.rows, key=_place):
            sequence, first = row.sequence, len(self.ids)
            self.stretches.append(Stretch(row.start, row.count, sequence.pages))
            self.ids += sequence.tokens(row.start, row.start + row.count)
            self._end(sequence.depth).add(row, first)
            capture = captures.get(sequence)
            if capture is not None and row.start < capture.tokens:
                self._captures.append((first, row, capture))
                wanted.update(layer for layer in capture.layers if layer <= sequence.depth)
        self.tokens = len(self.ids)
        self.depths = sorted(self._ends.keys() | wanted)

    def _end(self, depth: int) -> _End:
        end = self._ends.get(depth)
        if end is None:
            end = self._ends[depth] = _End()
        return end

    def tokens_at(self, depth: int) -> int:
        """Tokens whose sequence runs at least `depth` layers."""
        return sum([end.tokens for other, end in self._ends.items() if other >= depth])

    def sampled_at(self, depth: int) -> list[int]:
        """Indices of the tokens that yield a new one after `depth` layers."""
        return self._ends[depth].places if depth in self._ends else []

    def sequences_at(self, depth: int) -> list[Sequence]:
        """Whose tokens those are."""
        return self._ends[depth].sequences if depth in self._ends else []

    def capture(self, depth: int, hidden: Tensor) -> None:
        """Hands hidden: [T, hidden_size] after `depth` layers to those who want it."""
        for first, row, capture in self._captures:
            if depth in capture.layers and depth <= row.sequence.depth:
                count = min(row.count, capture.tokens - row.start)
                capture.take(depth, row.start, hidden[first : first + count])


class _End:
    """The rows that run to one depth. tokens: of all of them; places: indices of those that yield a new one;
    sequences: whose these are."""

    __slots__ = ("places", "sequences", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.places = list[int]()
        self.sequences = list[Sequence]()

    def add(self, row: Row, first: int) -> None:
        """first: index of the row's first token."""
        self.tokens += row.count
        if row.samples:
            self.places.append(first + row.count - 1)
            self.sequences.append(row.sequence)


def _place(row: Row) -> tuple[int, bool, int]:
    """Deepest first; then those that decode, with like contexts side by side."""
    return -row.sequence.depth, row.count > 1, row.start
