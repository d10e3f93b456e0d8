"""Gumbel noise that is a hash of (seed, step, token), and who comes out first with it.

Called by the sampler. The largest sum of a token's logit and its noise falls on each token as often as
softmax says. On the host, one row at a time: a row's numbers (400 kB for 49,152 tokens) stay in a core's
cache, those of a batch would not, and a row cannot see its neighbours. It must keep no state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from helios_server.native.library import Library

Floats = NDArray[np.floating]
Ids = NDArray[np.integer] | slice
"""Of the vocabulary: some, or all of them."""
BitsOf = Callable[[NDArray[np.integer]], NDArray[np.uint64]]
"""The hashes of tokens at some places."""
_MASK64 = (1 << 64) - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOUD = 6.0
"""Noise above which one token in four hundred is."""
_LOUD_BITS = np.uint64(int(np.exp(-np.exp(-_LOUD)) * 2.0**64))
"""As the hash has it, from which the noise rises."""
_ROUNDING = 0.01
"""More than all rounding here comes to."""


def first(
    values: Floats, seed: int, step: int, ids: Ids, vocabulary: int, kernels: Library | None = None
) -> int:
    """Index of the largest sum of value and noise. values: [n], of the tokens `ids`, none above 0. kernels:
    that hash, to the same bits, where the tokens are all of them."""
    # Logarithms are dear, and few tokens can win: those with a loud noise, and those so likely that they need
    # none.
    key = _key(seed, step)
    if kernels is not None and isinstance(ids, slice):
        room = vocabulary // 256 + 64  # more are never seen
        if found := kernels.loud(key, vocabulary, int(_LOUD_BITS), room):
            loud, loud_bits = found
            return _first(values, loud, loud_bits, lambda places: _bits(key, places, vocabulary))
    bits = _bits(key, ids, vocabulary)
    loud = np.flatnonzero(bits >= _LOUD_BITS)
    return _first(values, loud, bits[loud], lambda places: bits[places])


def _first(values: Floats, loud: NDArray[np.integer], loud_bits: NDArray[np.uint64], bits_of: BitsOf) -> int:
    """loud: places of loud noise, with their bits; bits_of: of other places."""
    sums = _sums(values, loud, loud_bits)
    best = np.array([values.argmax()])
    to_beat = float(max(sums.max(initial=-np.inf), _sums(values, best, bits_of(best))[0]))
    likely = np.flatnonzero(values >= to_beat - _LOUD - _ROUNDING)
    contenders = np.concatenate((likely, loud))
    return int(contenders[np.concatenate((_sums(values, likely, bits_of(likely)), sums)).argmax()])


def gumbel(seed: int, step: int, ids: Ids, vocabulary: int) -> NDArray[np.float64]:
    """The noise of tokens `ids`: [n], at one step of one sequence. Returns [n]."""
    return _gumbel(_bits(_key(seed, step), ids, vocabulary))


def _sums(values: Floats, places: NDArray[np.integer], bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = values[places].astype(np.float64) + _gumbel(bits)
    return sums


def _gumbel(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _key(seed: int, step: int) -> int:
    """Of all tokens' hashes at one step."""
    return _mix((seed + _mix((step + 1) * _GOLDEN & _MASK64)) & _MASK64)


def _bits(key: int, ids: Ids, vocabulary: int) -> NDArray[np.uint64]:
    """The finaliser of splitmix64, of each token."""
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
