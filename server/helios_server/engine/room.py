"""Which requests under way could go on under another model, and which must end first.

Asked by `changes.py` before anything is let go, and again before what was loaded is published. Pure: it sees
sequences and numbers, and must not wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from helios_server.engine.sequence import Sequence
from helios_server.errors import LimitsRefused

_LATER = "Try again when they have ended"


@dataclass(frozen=True)
class Room:
    """Of a model that comes. context: tokens of prompt and output that a request may have; vocabulary: token
    ids; tokenizer: its digest, "" without one."""

    context: int
    vocabulary: int
    tokenizer: str

    def misfit(self, sequences: Collection[Sequence], tokenizer: str) -> LimitsRefused | None:
        """Why requests under way, made with this tokenizer, could not go on here; None: they could."""
        if sequences and tokenizer != self.tokenizer:
            return _refused(f"{len(sequences)} requests under way were made with another tokenizer")
        longest = max((sequence.max_length + 1 for sequence in sequences), default=0)
        if longest > self.context:
            problem = f"a request under way may come to {longest} tokens, the new model's context is"
            return _refused(f"{problem} {self.context}")
        highest = max((max(_ids(sequence)) for sequence in sequences), default=-1)
        if highest >= self.vocabulary:
            problem = f"a request under way holds token {highest}, the new model's vocabulary has"
            return _refused(f"{problem} {self.vocabulary}")
        return None


def check_pool(sequences: Collection[Sequence], tokens: int, layers: int) -> None:
    """No request that was accepted may come to need more than the pool will hold. tokens: of the pool."""
    longest = max((sequence.max_length for sequence in sequences), default=0)
    if longest > tokens:
        raise LimitsRefused(
            "limits.layer_budget",
            f"a request under way may need {longest} tokens of KV, {layers} layers leave {tokens}",
            "Try again when it has ended, or raise the memory limit",
        )


def _ids(sequence: Sequence) -> Iterator[int]:
    """Every token id that a step may touch."""
    yield from sequence.prompt_ids
    yield from sequence.output_ids
    yield from sequence.sampling.stop_token_ids


def _refused(problem: str) -> LimitsRefused:
    return LimitsRefused("limits.model_uri", problem, _LATER)
