"""Scores of text are the same whether torch or the kernels look at the logits."""

from __future__ import annotations

import math

import pytest
import torch
from helios_server.exits.scoring import peaks
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels, of_each_kernel


@every_isa
@of_each_kernel
@given(st.integers(1, 9), st.integers(1, 700), st.floats(0.01, 60), st.integers(0, 2**31))
def test_kernels_find_what_torch_finds(isa: str, rows: int, size: int, spread: float, seed: int) -> None:
    logits = spread * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    found = peaks(logits.clone(), kernels(isa))
    wanted = peaks(logits.double(), None)
    assert found.top.tolist() == logits.argmax(dim=-1).tolist()
    assert torch.equal(found.highest, wanted.highest.float())
    assert torch.allclose(found.total.double(), wanted.total, rtol=1e-5)


@every_isa
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_has_no_total(isa: str, bad: float) -> None:
    logits = torch.zeros(3, 100)
    logits[1, 40] = bad
    for found in (peaks(logits.clone(), kernels(isa)), peaks(logits.clone(), None)):
        assert found.total.isfinite().tolist() == [True, False, True]
