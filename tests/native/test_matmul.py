"""Products, packed rows and norms against float64, and each row's bits against company and threads."""

from __future__ import annotations

import pytest
import torch
from helios_server.native.matrix import FORMATS
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels
from tests.native.oracle import packed_weight, product_error

every_format = pytest.mark.parametrize("fmt", FORMATS)
SIZES = st.one_of(st.integers(1, 70), st.sampled_from([64, 96, 128, 129, 200]))
ROWS = st.one_of(st.integers(1, 34), st.sampled_from([48, 49, 63, 70]))


def _matrix(out: int, size: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(out, size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@every_isa
@every_format
@given(
    ROWS,
    SIZES,
    SIZES,
    st.booleans(),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.integers(0, 999),
)
def test_a_product_is_within_the_bound_of_its_format(
    isa: str, fmt: str, rows: int, out: int, size: int, biased: bool, dtype: torch.dtype, seed: int
) -> None:
    library, weight = kernels(isa), _matrix(out, size, seed, dtype)
    bias = torch.randn(out, generator=torch.Generator().manual_seed(seed + 1)) if biased else None
    x = _matrix(rows, size, seed + 2)
    packed = library.pack(weight, bias, fmt)
    held = packed_weight(weight.float(), fmt)
    exact = x.double() @ held.T + (0 if bias is None else bias.double())
    error = (library.matmul(packed, x).double() - exact).abs()
    assert (error <= product_error(x, held, fmt, isa) + 2**-22 * exact.abs() + 1e-12).all()
