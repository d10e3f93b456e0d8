"""One batch of audited prompts: which layers run, which heads score, in units that fit between two steps.

Made and driven by `audit.py`. Prompts stand one after the other; a row's result does not depend on its
neighbours. It must hold only one layer that is not loaded for serving at a time, and touch no file: another
thread reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Many
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import torch
from helios_contract.telemetry import AuditRow
from torch import Tensor

from helios_server.engine.runner import Runner
from helios_server.exits.head import ExitHead
from helios_server.exits.scoring import score
from helios_server.models.backbone import Layer
from helios_server.models.rows import Rows, Stretch, rows_of
from helios_server.models.slabs import Scratch
from helios_server.models.step import Step
from helios_server.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

LAYER_ROWS, HEAD_ROWS = 128, 32
"""Of one unit of work: a step waits no longer than that takes."""
Units = Generator[None, None, None]
"""Every `yield` ends a unit of work."""
ReadLayer = Callable[[Callable[[], Layer]], Future[Layer]]
"""Has another thread call it, which reads a layer."""


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


@dataclass(frozen=True)
class _Scores:
    """Of the batch's N predictions.

    bits: [N] float64, of the token that followed; top: [N] int64, the most likely.
    """

    bits: Tensor
    top: Tensor

    def finite(self, part: slice) -> bool:
        return bool(self.bits[part].isfinite().all())


class AuditBatch:
    """Prompts whose states stand at the same layers, their tokens one after the other."""

    def __init__(
        self,
        prompts: list[PromptStates],
        weights: Runner,
        digests: Many[str],
        exit_layers: Many[int],
        read: ReadLayer,
    ) -> None:
        self._prompts = prompts
        self._weights = weights
        self._read = read
        self._ahead: Future[Layer] | None = None
        self._waits = False
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
        self._scores: dict[tuple[str, int], _Scores] = {}
        self._full: _Scores | None = None

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
        return AuditRow(prompt.ordinal, prompt.tokens - 1, text_bytes, _millibits(full, part), exits)

    def _spans(self) -> Iterator[tuple[int, PromptStates]]:
        return zip(self._offsets, self._prompts, strict=True)

    def _captured(self, layer: int) -> Tensor:
        """[T, hidden_size], a copy of its own."""
        return torch.cat([prompt.states.pop(layer) for prompt in self._prompts])

    @property
    def waits(self) -> bool:
        """Nothing can be done before a layer is read."""
        return self._waits and self._ahead is not None and not self._ahead.done()

    def _read_ahead(self, index: int) -> None:
        """Has a layer read that is not loaded for serving, once the one before it is let go."""
        if len(self._backbone.layers) <= index < self._backbone.config.num_layers:
            self._ahead = self._read(partial(self._backbone.load_layer, index))

    def _layer(self, index: int) -> Generator[None, None, Layer]:
        """A change of limits may have loaded it, or let it go, since it was looked for."""
        if index >= len(self._backbone.layers) and self._ahead is None:
            self._read_ahead(index)
        self._waits = True
        while self.waits:
            yield
        self._waits, ahead = False, self._ahead
        self._ahead = None
        return ahead.result() if ahead else self._backbone.layers[index]

    def _score_exit(self, layer: int, hidden: Tensor) -> Units:
        """With every bundle; heads that are the same (the model's own, mostly) are scored once."""
        known: dict[int, _Scores] = {}
        for digest in self._digests:
            head = self._weights.heads.at(digest, layer)
            if id(head) not in known:
                known[id(head)] = yield from self._score(head, hidden)
            self._scores[digest, layer] = known[id(head)]

    def _score(self, head: ExitHead, hidden: Tensor) -> Generator[None, None, _Scores]:
        parts = []
        for start in range(0, len(self._followed), HEAD_ROWS):
            rows, targets = (of[start : start + HEAD_ROWS] for of in (self._followed, self._targets))
            parts.append(score(self._backbone, head.apply, hidden[rows], targets))
            yield
        return _Scores(torch.cat([part.bits for part in parts]), torch.cat([part.top for part in parts]))

    def _run_layer(self, layer: Layer, hidden: Tensor) -> Units:
        """Replaces hidden: [T, hidden_size] by what the layer makes of it, a stretch of rows at a time."""
        slabs = Scratch(self._backbone.layout, [prompt.tokens for prompt in self._prompts], shared=True)
        for start in range(0, len(hidden), LAYER_ROWS):
            part = hidden[start : start + LAYER_ROWS]
            step = Step(self._rows(start, start + len(part), slabs), slabs)
            part.copy_(self._backbone.run([layer], part, step))
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


def _millibits(scores: _Scores, part: slice) -> int:
    return round(1000 * float(scores.bits[part].sum()))


def _agreeing(scores: _Scores, full: _Scores, part: slice) -> int:
    return int((scores.top[part] == full.top[part]).sum())
