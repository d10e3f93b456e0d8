"""Which tokens top-k, top-p and min-p leave to be drawn from.

Called by the sampler, for one row. Of tokens that are equally likely those with the lower ids come first, so
that what is left does not depend on how it is found. It must not draw.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from helios_server.engine.noise import Floats, Ids
from helios_server.engine.sampling import SamplingParams


def left(values: Floats, sampling: SamplingParams) -> Ids:
    """Ids of the tokens left, in no order. top-p and min-p judge by what top-k leaves; the most likely token
    always stays.

    values: [vocab_size], logits less the largest, at the temperature.
    """
    ids: Ids = slice(None)
    if 0 < sampling.top_k < len(values):
        ids = _most_likely(values, sampling.top_k)
    among = values[ids]
    if sampling.top_p < 1:
        ids = _of(ids, _nucleus(among, sampling.top_p))
    if sampling.min_p > 0:
        ids = _of(ids, np.flatnonzero(values[ids] >= math.log(sampling.min_p)))
    return ids


def _most_likely(values: Floats, count: int) -> NDArray[np.integer]:
    """Places of the `count` largest values."""
    return _down_to(values, np.partition(values, -count)[-count], count)


def _nucleus(values: Floats, top_p: float) -> NDArray[np.integer]:
    """Places of the fewest values that together have a share of `top_p`; the one that crosses it is in."""
    weights = np.exp(values)
    total = float(weights.sum())
    # All that are less likely than this have a share below 1 - top_p together, so none of them is in.
    places = np.flatnonzero(weights >= (1 - top_p) * total / len(weights))
    descending = np.sort(values[places])[::-1]
    weights = np.exp(descending, dtype=np.float64)
    before = weights.cumsum() - weights
    count = max(1, int((before < top_p * total).sum()))
    return _of(places, _down_to(values[places], descending[count - 1], count))


def _down_to(values: Floats, last: np.floating, count: int) -> NDArray[np.integer]:
    """Places of the `count` largest values, of which `last` is the smallest."""
    places = np.flatnonzero(values >= last)
    if len(places) == count:
        return places
    tied = values[places] == last
    above = places[~tied]
    return np.concatenate((above, places[tied][: count - len(above)]))


def _of(ids: Ids, places: NDArray[np.integer]) -> NDArray[np.integer]:
    """The ids at some places among them; of the whole vocabulary, the places are the ids."""
    if isinstance(ids, slice):
        return places
    at: NDArray[np.integer] = ids[places]
    return at
