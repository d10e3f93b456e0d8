"""Where packed weights stand: as they were written whatever comes and goes beside them, in no more memory
than is counted, and given back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_server.engine.host_memory import anonymous_bytes
from helios_server.native.matrix import Matrix
from helios_server.native.quantised import quantise
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import SANITIZED, kernels, names

MIB = 1 << 20


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 300), st.booleans()), min_size=1, max_size=12))
def test_matrices_stay_as_they_are_while_others_come_and_go(steps: list[tuple[int, int, bool]]) -> None:
    library = kernels(names()[0])
    held = list[tuple[Matrix, torch.Tensor]]()
    for seed, (out, size, drop) in enumerate(steps):
        weight = torch.randn(out, size, generator=torch.Generator().manual_seed(seed)).bfloat16()
        held.append((library.pack(weight, None, "bfloat16"), weight.float()))
        if drop:
            del held[len(held) // 2]
        for matrix, expected in held:
            assert torch.equal(matrix.rows(torch.arange(len(expected))), expected)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_what_fills_up_a_matrix_is_zero_where_another_one_was(out: int, size: int, rows: int) -> None:
    library = kernels(names()[-1])
    full = library.pack(torch.full((96, 128), 3.0), None, "int8")
    x, weight = torch.ones(rows, size), torch.ones(out, size)
    before = library.matmul(library.pack(weight, None, "int8"), x)
    del full
    assert torch.equal(library.matmul(library.pack(weight, None, "int8"), x), before)


@pytest.mark.skipif(SANITIZED, reason="`make test` runs it: the sanitizer's own memory would be counted too")
def test_no_more_memory_is_taken_than_is_counted_and_all_of_it_goes_back() -> None:
    """A matrix of half a MiB, beside others, may not bring a huge page of two."""
    library = kernels(names()[0])
    weight = quantise(torch.randn(960, 576, generator=torch.Generator().manual_seed(0)), "int8")
    held = [library.pack(weight, None, "int8")]
    start = anonymous_bytes()
    for _ in range(20):
        held.append(library.pack(weight, None, "int8"))
        counted = sum(matrix.nbytes for matrix in held[1:])
        assert abs(anonymous_bytes() - start - counted) < MIB
    while len(held) > 1:
        held.pop()
        assert anonymous_bytes() - start - sum(matrix.nbytes for matrix in held[1:]) < MIB


def test_matrices_that_are_packed_one_after_the_other_share_a_mapping() -> None:
    """So that the system can hold several of them in one huge page."""
    library = kernels(names()[0])
    weight = torch.ones(96, 128)
    held = [library.pack(weight, None, "float16")]
    before = _mappings()
    for _ in range(40):
        held.append(library.pack(weight, None, "float16"))
    assert _mappings() < before + 10
    assert all(bool((matrix.rows(torch.arange(96)) == 1).all()) for matrix in held)


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())
