"""The arrays of a step: what they say of each token, whatever the steps before left in them."""

from __future__ import annotations

import numpy as np
import pytest
from helios_server.models.rows import RowBuffers, Stretch
from hypothesis import given
from hypothesis import strategies as st

PAGE_TOKENS = 4


@st.composite
def stretches(draw: st.DrawFn) -> Stretch:
    """Of a sequence that holds as many pages as it needs, or more."""
    start, count = draw(st.integers(0, 30)), draw(st.just(1) | st.integers(1, 20))
    needed = -(-(start + count) // PAGE_TOKENS)
    pages = draw(st.lists(st.integers(0, 99), min_size=needed, max_size=needed + 3, unique=True))
    return Stretch(start, count, pages)


steps = st.lists(st.lists(stretches(), min_size=1, max_size=6), min_size=1, max_size=5)


@given(steps)
def test_each_token_is_told_its_place(steps: list[list[Stretch]]) -> None:
    """Arrays that persist say of a step what fresh ones say."""
    buffers = RowBuffers(PAGE_TOKENS)
    for step in steps:
        rows, at = buffers.fill(step), 0
        assert rows.tokens == len(rows.slots) == len(rows.tables) == sum(stretch.count for stretch in step)
        for index, stretch in enumerate(step):
            for place in range(stretch.start, stretch.context):
                slot = stretch.pages[place // PAGE_TOKENS] * PAGE_TOKENS + place % PAGE_TOKENS
                told = rows.positions[at], rows.slots[at], rows.tables[at], rows.contexts[at]
                assert told == (place, slot, index, place + 1)
                at += 1
            assert list(rows.pages[index, : len(stretch.pages)]) == list(stretch.pages)


@given(st.lists(stretches(), min_size=1, max_size=6), st.data())
def test_a_prefix_is_the_rows_of_its_stretches(step: list[Stretch], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(step)))
    whole = RowBuffers(PAGE_TOKENS).fill(step)
    first = whole.first(sum(stretch.count for stretch in step[:kept]))
    alone = RowBuffers(PAGE_TOKENS).fill(step[:kept])
    assert list(first.stretches) == step[:kept]
    for name in ("positions", "slots", "tables", "contexts"):
        assert np.array_equal(getattr(first, name), getattr(alone, name))
    assert len(first.pages) == kept


@pytest.mark.parametrize("moved", [[7, 2], [2, 7, 9], [5]])
def test_pages_that_moved_are_seen(moved: list[int]) -> None:
    """A change of limits moves pages between two steps; the place of a row in the step stays."""
    buffers, pages = RowBuffers(PAGE_TOKENS), [2, 7]
    buffers.fill([Stretch(2, 1, pages)])
    pages[:] = moved
    assert buffers.fill([Stretch(2, 1, pages)]).slots[0] == moved[0] * PAGE_TOKENS + 2


@given(steps)
def test_arrays_persist_while_steps_are_of_one_size(steps: list[list[Stretch]]) -> None:
    """Whoever prepares something of them does so once, and finds the numbers of each step there."""
    buffers = RowBuffers(PAGE_TOKENS)
    widest = [Stretch(0, 120, list(range(40)))] * 6
    buffers.fill(widest)  # none of the others has more
    for step in steps:
        first = buffers.fill(step)
        again = buffers.fill([Stretch(0, stretch.count, list(stretch.pages)) for stretch in step])
        assert all(one is other for one, other in zip(first.arrays, again.arrays, strict=True))
        assert [int(place) for place in first.positions] == [
            place for stretch in step for place in range(stretch.count)
        ]
