"""From logits to tokens: greedy, or sampled with noise that is a hash of (seed, step, token).

Called by the runner and by the offline loop; what a row may ask for stands in `sampling.py`. A row's token
must not depend on the rows beside it, nor on how often it was preempted: the noise depends on the sequence
alone. Nor may a row's failure: it is that row's outcome.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from helios_server.engine.sequence import Sequence
from helios_server.errors import RequestFailed

_MASK64 = (1 << 64) - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class Choice:
    """A token chosen.

    logprob: natural log of its probability under the raw logits; confidence: the largest one's.
    """

    token_id: int
    logprob: float
    confidence: float


def choose(
    logits: Tensor, sequences: Many[Sequence], eos_ids: tuple[int, ...]
) -> list[Choice | RequestFailed]:
    """The next token of each sequence, or why it has none.

    logits: [N, vocab_size], of the N sequences in order; overwritten.
    """
    highest, best = logits.max(dim=-1)
    failed = _not_finite(highest, logits.amin(dim=-1))
    for index, sequence in enumerate(sequences):
        if index not in failed and _adjusts(sequence):
            try:
                best[index] = _pick(logits[index].clone(), sequence, eos_ids)
            except Exception as error:
                failed[index] = RequestFailed.of(error)
    chosen = logits.gather(1, best[:, None])[:, 0] - highest
    total = logits.sub_(highest[:, None]).exp_().sum(dim=-1)  # relative to the highest
    logprobs, confidences = chosen - total.log(), total.reciprocal()
    values = zip(best.tolist(), logprobs.tolist(), confidences.tolist(), strict=True)
    return [failed.get(index) or Choice(*of_row) for index, of_row in enumerate(values)]


def _not_finite(highest: Tensor, lowest: Tensor) -> dict[int, RequestFailed]:
    """By row, what says that its logits are no numbers to choose by. highest, lowest: [N], NaN if one is."""
    finite = (highest.isfinite() & lowest.isfinite()).tolist()
    fix = "Use a wider dtype, or another checkpoint: the model overflows on this input"
    return {
        index: RequestFailed("logits", "not finite", fix) for index, good in enumerate(finite) if not good
    }


def _adjusts(sequence: Sequence) -> bool:
    """Whether the token may differ from the one with the largest raw logit."""
    sampling = sequence.sampling
    early = len(sequence.output_ids) < sampling.min_tokens
    return early or not sampling.greedy or sampling.repetition_penalty != 1


def _pick(logits: Tensor, sequence: Sequence, eos_ids: tuple[int, ...]) -> Tensor:
    """logits: [vocab_size], overwritten. Returns the token id."""
    sampling = sequence.sampling
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*sequence.prompt_ids, *sequence.output_ids}), device=logits.device)
        penalty = sampling.repetition_penalty
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    ends = {*eos_ids, *sampling.stop_token_ids}
    if len(sequence.output_ids) < sampling.min_tokens and len(ends) < len(logits):
        logits[list(ends)] = -torch.inf
    if sampling.greedy:
        return logits.argmax()
    # From the largest one down: what a small temperature makes infinite is then improbable, never NaN.
    ids, values = _candidates((logits - logits.max()) / sampling.temperature, sequence)
    return ids[(values.double() + gumbel(sequence.seed, len(sequence.output_ids), ids)).argmax()]


def _candidates(logits: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor]:
    """The tokens that top-k, top-p and min-p leave: ids [n] int64 and their logits [n]."""
    sampling = sequence.sampling
    if sampling.top_k or sampling.top_p < 1:
        values, ids = logits.topk(min(sampling.top_k or len(logits), len(logits)))
    else:
        values, ids = logits, torch.arange(len(logits), device=logits.device)
    if sampling.top_p == 1 and sampling.min_p == 0:
        return ids, values
    probabilities = values.softmax(dim=-1)
    keep = probabilities >= sampling.min_p * probabilities.max()
    if sampling.top_p < 1:  # sorted then; the token that crosses top_p is kept
        keep &= probabilities.cumsum(dim=-1) - probabilities < sampling.top_p
    keep[probabilities.argmax()] = True  # whatever rounding makes of bounds next to zero
    return ids[keep], values[keep]


def gumbel(seed: int, step: int, ids: Tensor) -> Tensor:
    """Gumbel noise of tokens `ids`: [n] int64, at one step of one sequence. Returns [n] float64."""
    key = _mix((seed + _mix((step + 1) * _GOLDEN & _MASK64)) & _MASK64)
    state = ids * _signed(_GOLDEN) + _signed(key)
    state = (state ^ _shift(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX_2)
    uniform = (_shift(state ^ _shift(state, 31), 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _mix(value: int) -> int:
    """The finaliser of splitmix64, on 64 bits."""
    value = (value ^ value >> 30) * _MIX_1 & _MASK64
    value = (value ^ value >> 27) * _MIX_2 & _MASK64
    return value ^ value >> 31


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shifts int64 to the right as if it were unsigned."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
