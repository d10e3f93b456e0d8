"""Steps to time: which shapes, and the plans with synthetic tokens that the engine's runner carries out.

Called by `timing.py`. It makes no measurement. Shapes do not depend on anyone's workload: a fit serves them
all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence as EngineSequence
from helios_server.exits.head import BareHead

_BATCHES = (1, 8, 32)
_SHORT, _LONG = 64, 256  # tokens of context


@dataclass(frozen=True, slots=True)
class Shape:
    """One step. layers: depth of every row; digest: of the bundle whose heads serve it, of kind `head_kind`.

    decoding: rows with one new token each, sampled; context: tokens of each, the new one included; prefill:
    tokens of one prompt's first chunk, not sampled.
    """

    layers: int
    head_kind: str
    digest: str
    decoding: int
    context: int
    prefill: int = 0

    @property
    def rows(self) -> int:
        """New tokens."""
        return self.decoding + self.prefill

    @property
    def kv_tokens(self) -> int:
        """Context summed over the sequences, as the engine counts it."""
        return self.decoding * self.context + self.prefill


@dataclass(frozen=True, slots=True)
class Room:
    """What shapes must keep within. rows: that decode together; tokens: of KV cache in whole pages of
    `page_tokens`; context: tokens of one sequence; chunk: new tokens of a step."""

    rows: int
    tokens: int
    page_tokens: int
    context: int
    chunk: int

    def batches(self) -> tuple[int, ...]:
        return tuple(sorted({min(batch, self.rows) for batch in _BATCHES}))

    def context_for(self, rows: int, wanted: int) -> int:
        """The context closest to `wanted` that fits `rows` rows."""
        pages = self.tokens // self.page_tokens // rows
        return max(1, min(wanted, self.context, pages * self.page_tokens))


def shapes_to_fit(deepest: int, digests: Mapping[str, str], room: Room) -> tuple[Shape, ...]:
    """Two depths by three batches for each kind of head, and a prompt's chunk at both depths.

    digests: kind of head -> the bundle that stands for it. The model's own head is among them: it serves at
    full depth.
    """
    depths = tuple(sorted({max(1, deepest // 3), deepest}))
    decoding = [
        _decoding(layers, kind, digest, batch, (first + second) % 2 == 1, room)
        for kind, digest in digests.items()
        for first, layers in enumerate(depths)
        for second, batch in enumerate(room.batches())
    ]
    prefill = [Shape(layers, BareHead.kind, "", 0, 0, _chunk(room)) for layers in depths]
    return (*decoding, *prefill)


def shape_to_check(deepest: int, room: Room) -> Shape:
    """A step that no fitted shape resembles: another depth and batch, prompt and output in one step."""
    rows, prefill = min(4, room.rows), max(1, _chunk(room) // 2)
    beside = room.tokens - prefill - room.page_tokens
    context = replace(room, tokens=beside).context_for(rows, (_SHORT + _LONG) // 2)
    return Shape(max(1, deepest * 2 // 3), BareHead.kind, "", rows, context, prefill)


def plan_step(shape: Shape, page_tokens: int, vocab_size: int, seed: int) -> StepPlan:
    """The plan of a step of that shape. Running it again writes the same places again."""
    noise = random.Random(seed)
    rows, page = [], 0
    lengths = [(shape.context, 1)] * shape.decoding + [(shape.prefill, shape.prefill)] * (shape.prefill > 0)
    for index, (length, count) in enumerate(lengths):
        ids = tuple(noise.randrange(vocab_size) for _ in range(length))
        sequence = EngineSequence(f"synthetic-{index}", ids, SamplingParams(), max_tokens=1)
        sequence.admit(shape.layers)
        pages = -(-length // page_tokens)
        sequence.pages = list(range(page, page + pages))
        sequence.advance(length - count)
        page += pages
        rows.append(Row(sequence, length - count, count, samples=index < shape.decoding))
    return StepPlan(tuple(rows))


def _decoding(layers: int, kind: str, digest: str, batch: int, long: bool, room: Room) -> Shape:
    """Short and long contexts alternate, so that the cost of a row and of its context can be told apart."""
    return Shape(layers, kind, digest, batch, room.context_for(batch, _LONG if long else _SHORT))


def _chunk(room: Room) -> int:
    return max(1, min(room.chunk, room.context, room.tokens))
