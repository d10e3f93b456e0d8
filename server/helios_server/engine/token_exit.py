"""Exit mode `token`: runs one planned step in which each token leaves at the first exit that is confident.

Rows leave one by one, and none waits for its neighbours. A token that left has keys and values in the layers
that it skipped, made of the state that it left with (CALM, 2207.07061), which later tokens attend to. Of a
prompt all but the last token run in full, for no token comes of them.

It is what HELIOS is measured against; all layers are held. In place of `Runner` where the limits say so; what
it cannot have beside it, `exit_mode.py` refuses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
from helios_contract.limits import Limits
from numpy.typing import NDArray
from torch import Tensor

from helios_server.engine.exit_mode import is_token
from helios_server.engine.heads import Heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import depths
from helios_server.engine.runner import Capture, Runner, StepResult
from helios_server.engine.sampler import Choice, choose
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.engine.survey import survey
from helios_server.errors import RequestFailed
from helios_server.models.backbone import Backbone
from helios_server.models.rows import Stretch
from helios_server.models.step import Step

_OPEN = 0
"""In place of a depth: where the token leaves is yet to be seen."""


def runner_for(limits: Limits, backbone: Backbone, heads: Heads, pool: KvPool) -> Runner:
    """What runs steps as the exit mode says."""
    if not is_token(limits):
        return Runner(backbone, heads, pool, limits.exits_digest)
    exits = depths(limits, backbone.config.num_layers)
    return TokenRunner(backbone, heads, pool, limits.exits_digest, exits, limits.exit_threshold)


class TokenRunner(Runner):
    """exits: depths in layers, ascending, full depth last; threshold: of confidence, from which on tokens
    leave."""

    def __init__(
        self,
        backbone: Backbone,
        heads: Heads,
        pool: KvPool,
        digest: str,
        exits: Many[int],
        threshold: float,
    ) -> None:
        super().__init__(backbone, heads, pool, digest)
        self._exits = exits
        self._threshold = threshold

    @torch.inference_mode()
    def run(self, plan: StepPlan, captures: Mapping[Sequence, Capture] | None = None) -> StepResult:
        """Runs a plan, which has at least one row. captures: none, for audits are refused."""
        tokens = _Tokens.of(plan, self._exits[-1])
        ids = self._tensor(tokens.ids())
        step = self._step(tokens)
        hidden = self.backbone.embed(ids, step.positions)
        outcomes, left, below = dict[Sequence, Choice | RequestFailed](), dict[Sequence, int](), 0
        for depth in tokens.stops(self._exits):
            hidden = self.backbone.run_layers(hidden, below, depth, step)
            below = depth
            chosen = self._choose(tokens, depth, hidden)
            outcomes |= chosen
            left |= dict.fromkeys(chosen, depth)
            leaving = tokens.leaving(depth, chosen)
            if depth == self._exits[-1] or not leaving.any():
                continue
            self._skip(tokens.only(leaving), depth, hidden[self._tensor(leaving.nonzero()[0])])
            tokens, hidden = tokens.only(~leaving), hidden[self._tensor((~leaving).nonzero()[0])]
            if not len(tokens.depths):
                break
            step = self._step(tokens)
        sampled = [row.sequence for row in plan.rows if row.samples]
        return StepResult({sequence: outcomes[sequence] for sequence in sampled}, left)

    def _step(self, tokens: _Tokens) -> Step:
        """Over these tokens. The one before it is at an end: they share their arrays."""
        return Step(self._rows.fill(tokens.stretches()), self.pool)

    def _choose(self, tokens: _Tokens, depth: int, hidden: Tensor) -> dict[Sequence, Choice | RequestFailed]:
        """The new tokens of those that leave after `depth` layers; at full depth that is everyone."""
        places = (tokens.depths == _OPEN).nonzero()[0]
        if depth not in self._exits or not len(places):
            return {}
        head, eos_ids = self.heads.at(self.digest, depth), self.backbone.config.eos_token_ids
        logits = self.backbone.choices(head.apply(hidden[self._tensor(places)]))
        if depth < self._exits[-1]:
            seen = survey(logits)
            # Logits that are no numbers are no confidence: such a row goes on, and fails at full depth.
            pairs = zip(seen.finite, seen.total, strict=True)
            confident = np.array([finite and 1 / total >= self._threshold for finite, total in pairs])
            places, logits = places[confident], logits[self._tensor(confident.nonzero()[0])]
        sequences = [tokens.rows[owner].sequence for owner in tokens.owners[places]]
        return dict(zip(sequences, choose(logits, sequences, eos_ids), strict=True)) if sequences else {}

    def _skip(self, tokens: _Tokens, depth: int, hidden: Tensor) -> None:
        self.backbone.skip_layers(hidden, depth, self._step(tokens))


@dataclass(frozen=True)
class _Tokens:
    """Tokens under way, as they lie in the hidden states. rows: of the plan.

    Of each token, [T] int64: owners: its row; positions: in its sequence; depths: where it leaves, in layers,
    or _OPEN.
    """

    rows: Many[Row]
    owners: NDArray[np.int64]
    positions: NDArray[np.int64]
    depths: NDArray[np.int64]

    @classmethod
    def of(cls, plan: StepPlan, whole: int) -> _Tokens:
        """All of a plan, decoding rows first, as `Runner` has them. whole: full depth."""
        rows = sorted(plan.rows, key=lambda row: (row.count > 1, row.start))
        return cls(
            rows,
            np.repeat(np.arange(len(rows)), [row.count for row in rows]),
            np.concatenate([np.arange(row.start, row.start + row.count) for row in rows]),
            np.array([depth for row in rows for depth in _depths(row, whole)], np.int64),
        )

    def ids(self) -> NDArray[np.int64]:
        """Of the vocabulary."""
        ids = [row.sequence.tokens(row.start, row.start + row.count) for row in self.rows]
        return np.concatenate([np.array(each, np.int64) for each in ids])

    def stops(self, exits: Many[int]) -> list[int]:
        """After which layers somebody may leave, ascending."""
        return sorted({*exits, *self.depths[self.depths != _OPEN].tolist()})

    def stretches(self) -> list[Stretch]:
        """Tokens that follow each other in one sequence attend together."""
        follows = (np.diff(self.owners) == 0) & (np.diff(self.positions) == 1)
        firsts = [0, *(1 + (~follows).nonzero()[0]).tolist()]
        return [
            Stretch(int(self.positions[first]), end - first, self.rows[self.owners[first]].sequence.pages)
            for first, end in zip(firsts, [*firsts[1:], len(self.positions)], strict=True)
        ]

    def leaving(self, depth: int, chosen: Mapping[Sequence, object]) -> NDArray[np.bool_]:
        """[T]: who goes no further than `depth`: those that left there before, and whose token was chosen."""
        owners = [index for index, row in enumerate(self.rows) if row.sequence in chosen]
        leaving: NDArray[np.bool_] = (self.depths == depth) | (
            (self.depths == _OPEN) & np.isin(self.owners, owners)
        )
        return leaving

    def only(self, which: NDArray[np.bool_]) -> _Tokens:
        return _Tokens(self.rows, self.owners[which], self.positions[which], self.depths[which])


def _depths(row: Row, whole: int) -> list[int]:
    """Where each token of a row leaves. One that yielded a token before, computed again after the row had to
    wait, leaves where it left."""
    silent = len(row.sequence.prompt_ids) - 1  # tokens of the prompt that yield none
    known = range(row.start, row.start + row.count - row.samples)
    depths = [whole if place < silent else _left(row.sequence, place - silent) for place in known]
    return depths + [_OPEN] * row.samples


def _left(sequence: Sequence, index: int) -> int:
    """The depth that a token of the output came from."""
    span = bisect_right(sequence.spans, index, key=lambda span: span.from_token) - 1
    return sequence.spans[span].served.depth
