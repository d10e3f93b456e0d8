"""Steps to time: which shapes, and the plans with synthetic tokens that the engine's runner carries out.

Called by `timing.py`. It makes no measurement. Shapes do not depend on anyone's workload: a fit serves them
all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence as EngineSequence
from helios_server.exits.head import BareHead

BATCHES = (1, 2, 3, 4, 8, 16, 32, 128)
"""Rows that are timed while all of them decode, at most as many as a step may have. Kernels wait for weights
with a few rows and compute in blocks of more: a step's time has kinks up to 8 rows, and is nearly straight
from 32 on."""
FEW = (1, 8, 32)
"""Where the kinks do not matter: heads beside the model's own, whose LM head they share, and energy."""
_MOST_DEEP = 32
"""Rows of the largest batch that goes through all layers: larger ones would take most of the time."""
_SHORT, _LONG = 64, 512  # tokens of context


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

    def batches(self, wanted: Sequence[int] = BATCHES) -> tuple[int, ...]:
        most = min(self.rows, self.chunk, self.tokens // self.page_tokens)
        return tuple(sorted({min(batch, most) for batch in wanted}))

    def context_for(self, rows: int, wanted: int) -> int:
        """The context closest to `wanted` that fits `rows` rows."""
        pages = self.tokens // self.page_tokens // rows
        return max(1, min(wanted, self.context, pages * self.page_tokens))


def shapes_to_fit(deepest: int, digests: Mapping[str, str], room: Room) -> tuple[Shape, ...]:
    """What tells every figure of the law from the others, in few and short steps.

    Each batch at two depths, but the largest, whose layers a prompt's chunk tells; one row that is not
    sampled, which tells the step from the head; one long context; a few batches with each further kind of
    head.
    digests: kind of head -> the bundle that stands for it. The model's own head is among them: it serves at
    full depth.
    """
    shallow, middle = max(1, deepest // 5), max(1, deepest // 3)
    own = [
        _decoding(layers, BareHead.kind, "", batch, _SHORT, room)
        for layers in sorted({shallow, deepest})
        for batch in room.batches()
        if layers == shallow or batch <= _MOST_DEEP
    ]
    others = [
        _decoding(shallow, kind, digest, batch, _SHORT, room)
        for kind, digest in digests.items()
        for batch in room.batches(FEW)
        if kind != BareHead.kind
    ]
    some = room.batches((8,))[0]
    context = _decoding(deepest, BareHead.kind, "", some, _LONG, room)
    unsampled = [
        Shape(shallow, BareHead.kind, "", 0, 0, 1),
        Shape(middle, BareHead.kind, "", 0, 0, _chunk(room)),
    ]
    return (*own, *others, context, *unsampled)


def shapes_to_check(deepest: int, room: Room) -> tuple[Shape, ...]:
    """Steps that no fitted shape resembles, at another depth: a batch between two that are fitted, and prompt
    and output in one step."""
    layers = max(1, deepest * 2 // 3)
    rows, prefill = min(6, room.rows), max(1, _chunk(room) // 4)
    beside = room.tokens - prefill - room.page_tokens
    context = replace(room, tokens=beside).context_for(rows, (_SHORT + _LONG) // 4)
    alone = _decoding(layers, BareHead.kind, "", min(12, max(room.batches())), context, room)
    return alone, Shape(layers, BareHead.kind, "", rows, context, prefill)


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


def _decoding(layers: int, kind: str, digest: str, batch: int, context: int, room: Room) -> Shape:
    return Shape(layers, kind, digest, batch, room.context_for(batch, context))


def _chunk(room: Room) -> int:
    return max(1, min(room.chunk, room.context, room.tokens))
