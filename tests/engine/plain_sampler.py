"""A token chosen as plainly as can be: over the whole vocabulary, sorted, with everybody's noise.

The oracle of `test_sampler`. Slow (3.5 ms a row of 49,152 tokens), and by torch where the sampler goes by
numpy.
"""

from __future__ import annotations

import torch
from helios_server.engine.sequence import Sequence
from torch import Tensor

MASK64 = (1 << 64) - 1
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def pick(logits: Tensor, sequence: Sequence, eos_ids: tuple[int, ...]) -> int:
    """logits: [vocab_size], overwritten."""
    sampling, step = sequence.sampling, len(sequence.output_ids)
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*sequence.prompt_ids, *sequence.output_ids}))
        penalty = sampling.repetition_penalty
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    ends = {*eos_ids, *sampling.stop_token_ids}
    if step < sampling.min_tokens and len(ends) < len(logits):
        logits[list(ends)] = -torch.inf
    if sampling.greedy:
        return int(logits.argmax())
    ids, values = _candidates((logits - logits.max()) / sampling.temperature, sequence)
    return int(ids[(values.double() + gumbel(sequence.seed, step, ids)).argmax()])


def _candidates(logits: Tensor, sequence: Sequence) -> tuple[Tensor, Tensor]:
    """The tokens that top-k, top-p and min-p leave: ids [n] int64 and their logits [n], most likely first."""
    sampling = sequence.sampling
    values, ids = logits.sort(descending=True, stable=True)
    if sampling.top_k:
        values, ids = values[: sampling.top_k], ids[: sampling.top_k]
    probabilities = values.softmax(dim=-1)
    keep = (probabilities >= sampling.min_p * probabilities[0]) & (values > -torch.inf)
    if sampling.top_p < 1:
        keep &= probabilities.cumsum(dim=-1) - probabilities < sampling.top_p
    keep[0] = True  # whatever rounding makes of bounds next to zero
    return ids[keep], values[keep]


def gumbel(seed: int, step: int, ids: Tensor) -> Tensor:
    """Noise of tokens `ids`: [n] int64. Returns [n] float64."""
    key = _mix((seed + _mix((step + 1) * GOLDEN & MASK64)) & MASK64)
    state = ids * _signed(GOLDEN) + _signed(key)
    state = (state ^ _shift(state, 30)) * _signed(MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(MIX_2)
    uniform = (_shift(state ^ _shift(state, 31), 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _mix(value: int) -> int:
    value = (value ^ value >> 30) * MIX_1 & MASK64
    value = (value ^ value >> 27) * MIX_2 & MASK64
    return value ^ value >> 31


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shifts int64 to the right as if it were unsigned."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
