"""One batch of audited prompts: which layers run, which heads score, in units that fit between two steps.

Made and driven by `audit.py`. Prompts stand one after the other; a row's result does not depend on its
neighbours. Exits are scored in the precision that serves; full depth is that of the reference, if there is
one, for which all layers run again from the embedding. It must hold only one layer that is not loaded for
serving at a time, and touch no file: another thread reads.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import torch
from helios_contract.telemetry import AS_PUBLISHED, AuditRow
from torch import Tensor

from helios_server.engine.read_ahead import Read, ReadAhead
from helios_server.engine.reference import Reference
from helios_server.engine.runner import Runner
from helios_server.engine.scores import PartialScores, Scores
from helios_server.exits.head import ExitHead
from helios_server.exits.scoring import logits_room, score_block
from helios_server.models.backbone import Backbone, Layer
from helios_server.models.linear import Linear
from helios_server.models.rows import Rows, Stretch, rows_of
from helios_server.models.slabs import Scratch
from helios_server.models.step import Step
from helios_server.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

LAYER_ROWS, HEAD_ROWS = 128, 32
"""Of one unit of work: a step waits no longer than that takes."""
Units = Generator[None, None, None]
"""Every `yield` ends a unit of work."""


@dataclass
class PromptStates:
    """The hidden states of one prompt, [tokens, hidden_size] for each of `layers`, as the prefill passes
    them.

    layers: ascending, the last one is the depth at which the request runs; arrived: seconds on the monotonic
    clock.
    """

    ordinal: int
    ids: tuple[int, ...]
    layers: tuple[int, ...]
    arrived: float
    states: dict[int, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt that are audited."""
        return len(self.ids)

    @property
    def size(self) -> int:
        """Token states held, all layers together."""
        return self.tokens * len(self.layers)

    def take(self, layer: int, start: int, hidden: Tensor) -> None:
        """A preempted prompt comes again; what it brings is the same."""
        if layer not in self.states:
            self.states[layer] = hidden.new_empty(self.tokens, hidden.shape[-1])
        self.states[layer][start : start + len(hidden)] = hidden


class AuditBatch:
    """Prompts whose states stand at the same layers, their tokens one after the other.

    reference: runs full depth; None: what serves does. name: the reference's, in the rows.
    """

    def __init__(
        self,
        prompts: list[PromptStates],
        weights: Runner,
        digests: Many[str],
        exit_layers: Many[int],
        read: Read,
        reference: Reference | None = None,
        name: str = AS_PUBLISHED,
    ) -> None:
        self._prompts = prompts
        self._weights = weights
        self._ahead = ReadAhead(read)
        self._reference = reference
        self._name = name
        self._backbone = weights.backbone
        self._digests = digests
        self._exits = [layer for layer in exit_layers if layer < self._backbone.config.num_layers]
        self._offsets = _offsets([prompt.tokens for prompt in prompts])
        device = self._backbone.numerics.device
        followed = [
            place for first, prompt in self._spans() for place in range(first, first + prompt.tokens - 1)
        ]
        self._followed = torch.tensor(followed, device=device)  # all tokens but the last of each prompt
        self._targets = torch.tensor([token for prompt in prompts for token in prompt.ids[1:]], device=device)
        self._scores: dict[tuple[str, int], Scores] = {}
        self._full: Scores | None = None

    @property
    def prompts(self) -> int:
        """Prompts scored together."""
        return len(self._prompts)

    @property
    def size(self) -> int:
        """Token states held, all layers together."""
        return sum(prompt.size for prompt in self._prompts)

    def run(self) -> Units:
        """Does everything. States are let go as soon as they are scored."""
        *shallower, depth = self._prompts[0].layers
        full = self._backbone.config.num_layers
        self._read_ahead(depth)
        for layer in shallower:
            yield from self._score_exit(layer, self._captured(layer))
        hidden = self._captured(depth)
        if depth in self._exits:
            yield from self._score_exit(depth, hidden)
        for index in range(depth, full):
            yield from self._run_layer((yield from self._layer(index)), hidden)
            self._read_ahead(index + 1)
            if index + 1 in self._exits:
                yield from self._score_exit(index + 1, hidden)
        self._full = yield from self._score(self._weights.heads.at("", full), hidden)
        if self._reference is not None:
            self._scores |= dict.fromkeys(((digest, full) for digest in self._digests), self._full)
            del hidden
            self._full = yield from self._run_reference(self._reference)

    def rows(self, tokenizer: Tokenizer) -> Iterator[AuditRow]:
        """What came out, prompt by prompt; of those that nothing can be said of, nothing."""
        start = 0
        for prompt in self._prompts:
            part = slice(start, start + prompt.tokens - 1)
            start = part.stop
            try:
                row = self._row(prompt, part, tokenizer)
            except BaseException:  # a panic of the tokenizers library is no Exception
                logger.exception("request %d is not audited", prompt.ordinal)
                continue
            if row is not None:
                yield row

    def _row(self, prompt: PromptStates, part: slice, tokenizer: Tokenizer) -> AuditRow | None:
        """None: full depth gives no finite bits. An exit that gives none is left out."""
        full = self._full
        if full is None or not full.finite(part):
            logger.warning("request %d is not audited: logits are not finite", prompt.ordinal)
            return None
        exits = {
            key: (_millibits(scores, part), _agreeing(scores, full, part))
            for key, scores in self._scores.items()
            if scores.finite(part)
        }
        text_bytes = tokenizer.bytes_of(prompt.ids[1:])
        counts = prompt.ordinal, prompt.tokens - 1, text_bytes
        return AuditRow(*counts, _millibits(full, part), exits, self._name)

    def _spans(self) -> Iterator[tuple[int, PromptStates]]:
        return zip(self._offsets, self._prompts, strict=True)

    def _captured(self, layer: int) -> Tensor:
        """[T, hidden_size], a copy of its own."""
        return torch.cat([prompt.states.pop(layer) for prompt in self._prompts])

    @property
    def waits(self) -> bool:
        """Nothing can be done before a layer is read."""
        return self._ahead.waits

    def _read_ahead(self, index: int) -> None:
        """Has a layer read that is not loaded for serving, once the one before it is let go."""
        if len(self._backbone.layers) <= index < self._backbone.config.num_layers:
            self._ahead.begin(partial(self._backbone.load_layer, index))

    def _layer(self, index: int) -> Generator[None, None, Layer]:
        """A change of limits may have loaded it, or let it go, since it was looked for."""
        if index >= len(self._backbone.layers) and not self._ahead.has_begun:
            self._read_ahead(index)
        if not self._ahead.has_begun:
            return self._backbone.layers[index]
        layer: Layer = yield from self._ahead.take()
        return layer

    def _score_exit(self, layer: int, hidden: Tensor) -> Units:
        """With every bundle; heads that are the same (the model's own, mostly) are scored once."""
        known: dict[int, Scores] = {}
        for digest in self._digests:
            head = self._weights.heads.at(digest, layer)
            if id(head) not in known:
                known[id(head)] = yield from self._score(head, hidden)
            self._scores[digest, layer] = known[id(head)]

    def _score(self, head: ExitHead, hidden: Tensor) -> Generator[None, None, Scores]:
        parts, room = [], logits_room(self._backbone, HEAD_ROWS)
        for rows, targets in zip(
            self._followed.split(HEAD_ROWS), self._targets.split(HEAD_ROWS), strict=True
        ):
            parts.append(score_block(self._backbone, head.apply(hidden[rows]), targets, room))
            yield
        bits, top, _ = zip(*parts, strict=True)
        return Scores(torch.cat(bits), torch.cat(top))

    def _run_layer(self, layer: Layer, hidden: Tensor, backbone: Backbone | None = None) -> Units:
        """Replaces hidden: [T, hidden_size] by what the layer makes of it, a stretch of rows at a time.

        backbone: whose layer it is; None: of the one that serves.
        """
        backbone = backbone or self._backbone
        slabs = Scratch(backbone.layout, [prompt.tokens for prompt in self._prompts], shared=True)
        for start in range(0, len(hidden), LAYER_ROWS):
            part = hidden[start : start + LAYER_ROWS]
            step = Step(self._rows(start, start + len(part), slabs), slabs)
            part.copy_(backbone.run([layer], part, step))
            yield

    def _run_reference(self, reference: Reference) -> Generator[None, None, Scores]:
        """Full depth, all layers from the embedding, each read while the one before it is let go."""
        ahead, backbone = self._ahead, reference.backbone
        device = backbone.numerics.device
        ids = torch.tensor([token for prompt in self._prompts for token in prompt.ids], device=device)
        places = torch.cat([torch.arange(prompt.tokens, device=device) for prompt in self._prompts])
        ahead.begin(partial(reference.embedded, ids, places))
        hidden = yield from ahead.take()
        ahead.begin(partial(reference.load_layer, 0))
        for index in range(1, backbone.config.num_layers + 1):
            yield from self._run_layer((yield from ahead.take()), hidden, backbone)
            more = index < backbone.config.num_layers
            ahead.begin(partial(reference.load_layer, index) if more else partial(reference.head, 0))
        normed, scores = (
            backbone.final_norm(hidden[self._followed]),
            PartialScores(self._targets, backbone.numerics.library),
        )
        for start, following in zip_longest(reference.starts, reference.starts[1:]):
            yield from self._score_part((yield from ahead.take()), start, normed, scores)
            if following is not None:
                ahead.begin(partial(reference.head, following))
        return scores.all()

    def _score_part(self, head: Linear, start: int, normed: Tensor, scores: PartialScores) -> Units:
        """Adds the logits of the ids from `start` on."""
        for first in range(0, len(normed), HEAD_ROWS):
            rows = slice(first, min(first + HEAD_ROWS, len(normed)))
            scores.add(rows, start, head(normed[rows]))
            yield

    def _rows(self, start: int, stop: int, slabs: Scratch) -> Rows:
        """The batch's tokens [start, stop), each within its prompt."""
        stretches = []
        for (first, prompt), pages in zip(self._spans(), slabs.pages_of, strict=True):
            low, high = max(first, start), min(first + prompt.tokens, stop)
            if low < high:
                stretches.append(Stretch(low - first, high - low, pages))
        return rows_of(stretches, slabs.layout.page_tokens)


def _offsets(lengths: Many[int]) -> list[int]:
    return [sum(lengths[:index]) for index in range(len(lengths))]


def _millibits(scores: Scores, part: slice) -> int:
    return round(1000 * float(scores.bits[part].sum()))


def _agreeing(scores: Scores, full: Scores, part: slice) -> int:
    return int((scores.top[part] == full.top[part]).sum())
