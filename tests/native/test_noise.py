"""The noise of sampled rows: the hashes that are loud, and the tokens that they choose, are numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from helios_server.engine import noise
from hypothesis import example, given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels

WORDS = st.integers(0, 2**64 - 1)


@every_isa
@given(key=WORDS, count=st.integers(1, 3000), least=WORDS)
@example(key=0, count=1, least=0)
@example(key=2**64 - 1, count=17, least=2**63)
@example(key=1, count=15, least=2**64 - 1)
def test_what_is_loud_is_what_numpy_finds(isa: str, key: int, count: int, least: int) -> None:
    found = kernels(isa).loud(key, count, least, room=count)
    assert found is not None
    ids, bits = found
    whole = noise._bits(key, slice(None), count)
    assert ids.tolist() == np.flatnonzero(whole >= np.uint64(least)).tolist()
    assert bits.tolist() == whole[ids].tolist()


@every_isa
def test_more_than_there_is_room_for_are_none(isa: str) -> None:
    assert kernels(isa).loud(3, 100, 0, room=99) is None
    assert kernels(isa).loud(3, 100, 0, room=100) is not None


@every_isa
@given(seed=WORDS, step=st.integers(0, 5000), vocabulary=st.integers(1, 60_000), spread=st.floats(0, 8))
def test_a_token_is_the_one_that_numpy_alone_chooses(
    isa: str, seed: int, step: int, vocabulary: int, spread: float
) -> None:
    values = np.random.default_rng(seed % 997).normal(0, spread, vocabulary).astype(np.float32)
    values -= values.max()
    chosen = noise.first(values, seed, step, slice(None), vocabulary, kernels(isa))
    assert chosen == noise.first(values, seed, step, slice(None), vocabulary)
    plainly = values.astype(np.float64) + noise.gumbel(seed, step, slice(None), vocabulary)
    assert chosen == int(plainly.argmax())


@every_isa
def test_noise_that_is_all_loud_still_chooses(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than was to be expected: numpy looks again."""
    monkeypatch.setattr(noise, "_LOUD_BITS", np.uint64(0))
    values = np.zeros(5000, np.float32)
    assert noise.first(values, 1, 2, slice(None), 5000, kernels(isa)) == int(
        noise.gumbel(1, 2, slice(None), 5000).argmax()
    )
