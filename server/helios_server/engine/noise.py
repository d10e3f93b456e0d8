"""Gumbel noise that is a hash of (seed, step, token), and who comes out first with it.

Called by the sampler. The largest sum of a token's logit and its noise falls on each token as often as
softmax says. On the host, one row at a time: a row's numbers (400 kB for 49,152 tokens) stay in a core's
cache, those of a batch would not, and a row cannot see its neighbours. It must keep no state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ids = NDArray[np.integer] | slice
"""Of the vocabulary: some, or all of them."""
_MASK64 = (1 << 64) - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOUD = 6.0
"""Noise above which one token in four hundred is."""
_LOUD_BITS = np.uint64(int(np.exp(-np.exp(-_LOUD)) * 2.0**64))
"""As the hash has it, from which the noise rises."""
_ROUNDING = 0.01
"""More than all rounding here comes to."""


def first(values: Floats, seed: int, step: int, ids: Ids, vocabulary: int) -> int:
    """Index of the largest sum of value and noise. values: [n], of the tokens `ids`, none above 0."""
    bits = _bits(seed, step, ids, vocabulary)
    # Logarithms are dear, and few tokens can win: those with a loud noise, and those so likely that they need
    # none.
    loud = np.flatnonzero(bits >= _LOUD_BITS)
    rivals = np.append(loud, values.argmax())
    to_beat = float(_sums(values, bits, rivals).max())
    likely = np.flatnonzero(values >= to_beat - _LOUD - _ROUNDING)
    contenders = np.concatenate((likely, loud))
    return int(contenders[_sums(values, bits, contenders).argmax()])


def gumbel(seed: int, step: int, ids: Ids, vocabulary: int) -> NDArray[np.float64]:
    """The noise of tokens `ids`: [n], at one step of one sequence. Returns [n]."""
    return _gumbel(_bits(seed, step, ids, vocabulary))


def _sums(values: Floats, bits: NDArray[np.uint64], places: NDArray[np.integer]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = values[places].astype(np.float64) + _gumbel(bits[places])
    return sums


def _gumbel(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _bits(seed: int, step: int, ids: Ids, vocabulary: int) -> NDArray[np.uint64]:
    """The finaliser of splitmix64, of each token."""
    key = _mix((seed + _mix((step + 1) * _GOLDEN & _MASK64)) & _MASK64)
    state = _spread(vocabulary)[ids] + np.uint64(key)
    shifted = np.empty_like(state)
    for bits, factor in ((30, _MIX_1), (27, _MIX_2)):
        state ^= np.right_shift(state, np.uint64(bits), out=shifted)
        state *= np.uint64(factor)
    state ^= np.right_shift(state, np.uint64(31), out=shifted)
    return state


@lru_cache(maxsize=2)  # of the model that serves, and of one that takes its place
def _spread(vocabulary: int) -> NDArray[np.uint64]:
    """Each id, times the golden ratio."""
    spread = np.arange(vocabulary, dtype=np.uint64) * np.uint64(_GOLDEN)
    spread.flags.writeable = False
    return spread


def _mix(value: int) -> int:
    """The finaliser of splitmix64."""
    value = (value ^ value >> 30) * _MIX_1 & _MASK64
    value = (value ^ value >> 27) * _MIX_2 & _MASK64
    return value ^ value >> 31
