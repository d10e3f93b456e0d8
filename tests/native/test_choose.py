"""What a token is chosen by, against torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels

VOCABULARY = st.one_of(st.integers(1, 150), st.sampled_from([512, 1000, 4097]))


@every_isa
@given(st.integers(1, 5), VOCABULARY, st.integers(0, 999), st.sampled_from([0.1, 1.0, 30.0]))
def test_the_highest_its_place_and_the_sum(isa: str, rows: int, size: int, seed: int, scale: float) -> None:
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * scale
    got = kernels(isa).choose(logits)
    highest, best = logits.max(dim=1)
    total = (logits.double() - highest[:, None].double()).exp().sum(dim=1)
    assert got.best == best.tolist()
    assert got.highest == highest.tolist()
    # What is more than 87 below the highest counts as e^-87.
    assert got.total == pytest.approx(total.tolist(), rel=2**-18, abs=0)
    assert all(got.finite)


@every_isa
@given(VOCABULARY, st.data())
def test_the_first_of_equals_is_chosen(isa: str, size: int, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=5))
    logits = torch.full((1, size), -2.0)
    logits[0, list(places)] = 3.0
    assert kernels(isa).choose(logits).best == [min(places)]


@every_isa
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@given(VOCABULARY, st.data())
def test_a_row_that_is_not_finite_is_told_and_alone(
    isa: str, value: float, size: int, data: st.DataObject
) -> None:
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    others = kernels(isa).choose(logits)
    logits[1, data.draw(st.integers(0, size - 1))] = value
    got = kernels(isa, 2).choose(logits)
    assert got.finite == [True, False, True]
    for name in ("best", "highest", "total"):
        assert getattr(got, name)[::2] == getattr(others, name)[::2]


@every_isa
def test_ids_that_must_not_be_chosen_have_the_least_logit_there_is(isa: str) -> None:
    logits = torch.full((1, 100), torch.finfo(torch.float32).min)
    logits[0, 40] = 5.0
    got = kernels(isa).choose(logits)
    assert got.best == [40]
    assert all(got.finite)
    assert got.total == [1.0]
