"""From logits to tokens: greedy, or sampled with noise that is a hash of (seed, step, token).

Called by the runner and by the offline loop; what a row may ask for stands in `sampling.py`. All rows are
surveyed in one pass; those that ask for another token than the likeliest are then chosen one by one. A row's
token must not depend on the rows beside it, nor on how often it was preempted. Nor may a row's failure: it is
that row's outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np
from torch import Tensor

from helios_server.engine import filters, noise
from helios_server.engine.noise import Floats
from helios_server.engine.sequence import Sequence
from helios_server.engine.survey import Survey, survey
from helios_server.errors import RequestFailed
from helios_server.native.library import Library


class Choice(NamedTuple):
    """A token chosen.

    logprob: natural log of its probability under the raw logits; confidence: the largest one's.
    """

    token_id: int
    logprob: float
    confidence: float


def choose(
    logits: Tensor, sequences: Many[Sequence], eos_ids: tuple[int, ...], kernels: Library | None = None
) -> list[Choice | RequestFailed]:
    """The next token of each sequence, or why it has none.

    logits: [N, vocab_size], of the N sequences in order; left as they are. kernels: that survey them, and
    that hash.
    """
    seen = survey(logits, kernels)
    return [_outcome(logits, seen, row, sequence, eos_ids, kernels) for row, sequence in enumerate(sequences)]


def _outcome(
    logits: Tensor,
    seen: Survey,
    row: int,
    sequence: Sequence,
    eos_ids: tuple[int, ...],
    kernels: Library | None,
) -> Choice | RequestFailed:
    if not seen.finite[row]:
        fix = "Use a wider dtype, or another checkpoint: the model overflows on this input"
        return RequestFailed("logits", "not finite", fix)
    token, below, total = seen.best[row], 0.0, seen.total[row]
    if _adjusts(sequence):
        raw = logits[row].cpu().numpy()
        try:
            token = _pick(raw.copy(), sequence, eos_ids, kernels)
        except Exception as error:
            return RequestFailed.of(error)
        below = float(raw[token]) - seen.highest[row]
    return Choice(token, below - math.log(total), 1 / total)


def _adjusts(sequence: Sequence) -> bool:
    """Whether the token may differ from the one with the largest raw logit."""
    sampling = sequence.sampling
    early = len(sequence.output_ids) < sampling.min_tokens
    return early or not sampling.greedy or sampling.repetition_penalty != 1


def _pick(logits: Floats, sequence: Sequence, eos_ids: tuple[int, ...], kernels: Library | None) -> int:
    """logits: [vocab_size], overwritten. Returns the token id."""
    sampling, step = sequence.sampling, len(sequence.output_ids)
    with np.errstate(over="ignore"):  # to minus infinity: no token that any bound leaves a chance
        if sequence.seen is not None:
            _penalise(logits, np.frombuffer(sequence.seen.ids, np.int64), sampling.repetition_penalty)
        ends = {*eos_ids, *sampling.stop_token_ids}
        if step < sampling.min_tokens and len(ends) < len(logits):
            logits[list(ends)] = -np.inf
        if sampling.greedy:
            return int(logits.argmax())
        # From the largest one down: what a small temperature makes infinite is then improbable, never NaN.
        logits -= logits.max()
        logits /= sampling.temperature
        ids = filters.left(logits, sampling)
        place = noise.first(logits[ids], sequence.seed, step, ids, len(logits), kernels)
    return place if isinstance(ids, slice) else int(ids[place])


def _penalise(logits: Floats, seen: np.ndarray, penalty: float) -> None:
    """Makes tokens seen before less likely, by a penalty above 1; below it, more."""
    values = logits[seen]
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)
