"""Greedy answers to many prompts, several at a time: a plain loop in batches, without the engine's schedule.

Called by `tasks.py`, with all layers that it needs in memory. Who shares a batch follows from the prompts'
order alone, so that the same question has the same answers. It must not judge them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios_server.engine import sequence as engine
from helios_server.engine.offline import Weights
from helios_server.engine.request import Served
from helios_server.engine.sampler import choose
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import RequestFailed
from helios_server.models.rows import RowBuffers, Stretch
from helios_server.models.slabs import PAGE_TOKENS, Scratch
from helios_server.models.step import Step

ROWS = 16
"""Answers at a time."""
PIECE_TOKENS = 256
"""Of a prompt that are read at a time."""
_NOBODY = Served("", "", "", "", "", 0)


@dataclass(frozen=True)
class Question:
    """ids: of the prompt, at least one; most: tokens of the answer."""

    ids: tuple[int, ...]
    most: int

    @property
    def tokens(self) -> int:
        """That need keys and values, at most."""
        return len(self.ids) + self.most


def tokens_at_once(questions: Sequence[Question]) -> int:
    """Whose keys and values are held at a time, at most; in whole pages."""
    pages = [sum(-(-question.tokens // PAGE_TOKENS) for question in batch) for batch in _batches(questions)]
    return max(pages, default=0) * PAGE_TOKENS


@torch.inference_mode()
def answers(
    weights: Weights, depth: int, questions: Sequence[Question]
) -> Iterator[tuple[int, ...] | RequestFailed]:
    """The tokens of each answer, its end token left out, in order. RequestFailed where logits were not
    finite."""
    for batch in _batches(questions):
        yield from _Batch(weights, depth, batch).run()


def _batches(questions: Sequence[Question]) -> list[Sequence[Question]]:
    return [questions[at : at + ROWS] for at in range(0, len(questions), ROWS)]


class _Batch:
    def __init__(self, weights: Weights, depth: int, questions: Sequence[Question]) -> None:
        self._weights = weights
        self._depth = depth
        self._rows = [
            engine.Sequence(f"task-{index}", question.ids, SamplingParams(), question.most)
            for index, question in enumerate(questions)
        ]
        backbone = weights.backbone
        self._slabs = Scratch(backbone.layout, [question.tokens for question in questions], shared=False)
        self._buffers = RowBuffers(PAGE_TOKENS)
        self._failed: dict[int, RequestFailed] = {}

    def run(self) -> list[tuple[int, ...] | RequestFailed]:
        """All prompts, then a token of each row that goes on."""
        going = self._choose(range(len(self._rows)), self._read_prompts())
        while going:
            stretches = [self._stretch(index, self._rows[index].length - 1, 1) for index in going]
            hidden = self._forward([self._rows[index].output_ids[-1] for index in going], stretches)
            going = self._choose(going, hidden)
        return [self._failed.get(index) or self._answer(row) for index, row in enumerate(self._rows)]

    def _read_prompts(self) -> Tensor:
        """The hidden state after each prompt's last token, [rows, hidden_size]."""
        last: dict[int, Tensor] = {}
        for stretches in self._pieces():
            ids = [token for index, each in stretches for token in self._ids(index, each)]
            hidden, end = self._forward(ids, [each for _, each in stretches]), 0
            for index, each in stretches:
                end += each.count
                last[index] = hidden[end - 1].clone()
        return torch.stack([last[index] for index in range(len(self._rows))])

    def _pieces(self) -> Iterator[list[tuple[int, Stretch]]]:
        """Prompts side by side as far as a step has tokens; a long one in several steps."""
        step: list[tuple[int, Stretch]] = []
        for index, row in enumerate(self._rows):
            for start in range(0, len(row.prompt_ids), PIECE_TOKENS):
                count = min(PIECE_TOKENS, len(row.prompt_ids) - start)
                if step and sum(each.count for _, each in step) + count > PIECE_TOKENS:
                    yield step
                    step = []
                step.append((index, self._stretch(index, start, count)))
        yield step

    def _ids(self, index: int, stretch: Stretch) -> tuple[int, ...]:
        return self._rows[index].prompt_ids[stretch.start : stretch.context]

    def _stretch(self, index: int, start: int, count: int) -> Stretch:
        return Stretch(start, count, self._slabs.pages_of[index])

    def _forward(self, ids: Sequence[int], stretches: Sequence[Stretch]) -> Tensor:
        backbone = self._weights.backbone
        step = Step(self._buffers.fill(stretches), self._slabs)
        hidden = backbone.embed(torch.tensor(ids, device=backbone.numerics.device), step.positions)
        return backbone.run_layers(hidden, 0, self._depth, step)

    def _choose(self, rows: Sequence[int], hidden: Tensor) -> list[int]:
        """A token for each row; those that go on."""
        backbone, eos_ids = self._weights.backbone, self._weights.backbone.config.eos_token_ids
        logits = backbone.choices(self._weights.head.apply(hidden))
        chosen = choose(logits, [self._rows[row] for row in rows], eos_ids, backbone.numerics.library)
        going = []
        for row, choice in zip(rows, chosen, strict=True):
            if isinstance(choice, RequestFailed):
                self._failed[row] = choice
                continue
            sequence = self._rows[row]
            sequence.append(choice.token_id, _NOBODY)
            if choice.token_id not in eos_ids and len(sequence.output_ids) < sequence.max_tokens:
                going.append(row)
        return going

    def _answer(self, row: engine.Sequence) -> tuple[int, ...]:
        ended = row.output_ids[-1] in self._weights.backbone.config.eos_token_ids
        return tuple(row.output_ids[:-1] if ended else row.output_ids)
