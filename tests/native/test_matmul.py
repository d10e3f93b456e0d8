"""Products, packed rows and norms against float64, and each row's bits against company and threads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helios_server.errors import HeliosError
from helios_server.native.matrix import FORMATS
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels, names, of_each_kernel
from tests.native.oracle import packed_weight, product_error, rms_norm

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
@of_each_kernel
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


@every_isa
@every_format
@given(ROWS, st.integers(1, 70), SIZES, st.booleans(), st.integers(0, 999))
@of_each_kernel
def test_a_gated_product(
    isa: str, fmt: str, rows: int, half: int, size: int, biased: bool, seed: int
) -> None:
    library, weight = kernels(isa), _matrix(2 * half, size, seed) * size**-0.5
    bias = torch.randn(2 * half, generator=torch.Generator().manual_seed(seed + 1)) if biased else None
    x = _matrix(rows, size, seed + 2)
    held = packed_weight(weight, fmt)
    gate, up = (x.double() @ held.T + (0 if bias is None else bias.double())).chunk(2, dim=1)
    gate_error, up_error = product_error(x, held, fmt, isa).chunk(2, dim=1)
    # The slope of x * sigmoid(x) is below 1.1.
    bound = 1.1 * gate_error * (up.abs() + up_error) + F.silu(gate).abs() * up_error
    got = library.matmul(library.pack(weight, bias, fmt, gated=True), x).double()
    exact = F.silu(gate) * up
    assert ((got - exact).abs() <= bound + 2**-20 * exact.abs() + 2**-21 * up.abs() + 1e-12).all()


@every_isa
@every_format
@given(ROWS, SIZES, SIZES, st.integers(0, 999), st.sampled_from([2, 3, 5]))
@of_each_kernel
def test_a_rows_bits_alone_in_company_and_with_any_number_of_threads(
    isa: str, fmt: str, rows: int, out: int, size: int, seed: int, threads: int
) -> None:
    library, x = kernels(isa), _matrix(rows, size, seed)
    packed = library.pack(_matrix(out, size, seed + 1), None, fmt)
    together = library.matmul(packed, x)
    assert torch.equal(together, kernels(isa, threads).matmul(packed, x))
    for row in {0, rows // 2, rows - 1}:
        assert torch.equal(library.matmul(packed, x[row : row + 1])[0], together[row])


@given(ROWS, SIZES, SIZES, st.integers(0, 999))
def test_int8_products_are_bitwise_the_same_under_every_instruction_set(
    rows: int, out: int, size: int, seed: int
) -> None:
    x, weight = _matrix(rows, size, seed), _matrix(out, size, seed + 1)
    products = [kernels(isa).matmul(kernels(isa).pack(weight, None, "int8"), x) for isa in names()]
    assert all(torch.equal(product, products[0]) for product in products)


@every_isa
@every_format
@given(SIZES, SIZES, st.booleans(), st.data())
@of_each_kernel
def test_rows_come_back_as_they_were_packed(
    isa: str, fmt: str, out: int, size: int, gated: bool, data: st.DataObject
) -> None:
    out += out % 2
    weight = _matrix(out, size, 3)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, out - 1), max_size=9)), dtype=torch.int64)
    rows = kernels(isa).pack(weight, None, fmt, gated=gated).rows(ids)
    held = packed_weight(weight, fmt)[ids]
    # float16 and bfloat16 are exact; a unit of int8 is rounded once.
    assert ((rows.double() - held).abs() <= (2.0**-23 if fmt == "int8" else 0) * held.abs()).all()


@every_isa
@given(ROWS, SIZES, st.integers(0, 999))
@of_each_kernel
def test_rms_norm(isa: str, rows: int, size: int, seed: int) -> None:
    x, weight = _matrix(rows, size, seed), 1 + _matrix(1, size, seed + 1)[0] / 5
    exact = rms_norm(x, weight, 1e-5)
    assert torch.allclose(kernels(isa).rms_norm(x, weight, 1e-5).double(), exact, rtol=2**-21, atol=1e-9)


@every_isa
@every_format
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_row(isa: str, fmt: str, value: float) -> None:
    library, x = kernels(isa), _matrix(5, 40, 0)
    packed = library.pack(_matrix(30, 40, 1), None, fmt)
    clean = library.matmul(packed, x)
    x[2, 7] = value
    got = library.matmul(packed, x)
    assert not got[2].isfinite().any()
    others = [0, 1, 3, 4]
    assert torch.equal(got[others], clean[others])


@every_isa
@every_format
def test_rows_of_zeros_and_of_the_smallest_numbers(isa: str, fmt: str) -> None:
    library = kernels(isa)
    packed = library.pack(_matrix(20, 33, 1), None, fmt)
    assert torch.equal(library.matmul(packed, torch.zeros(3, 33)), torch.zeros(3, 20))
    assert library.matmul(packed, torch.full((3, 33), 1e-38)).abs().max() < 1e-36
    assert len(library.matmul(packed, torch.empty(0, 33))) == 0


@every_isa
def test_a_weight_that_a_format_cannot_hold_is_refused(isa: str) -> None:
    weight = torch.ones(4, 4)
    weight[1, 2] = -70000
    with pytest.raises(HeliosError, match="dtype: float16 cannot hold a weight of 70000; Use dtype bfloat16"):
        kernels(isa).pack(weight, None, "float16")
    weight[1, 2] = torch.nan
    with pytest.raises(HeliosError, match="int8 cannot hold a weight that is not finite"):
        kernels(isa).pack(weight, None, "int8")
    with pytest.raises(HeliosError, match="weight_dtype: int4 cannot hold a weight of"):
        kernels(isa).pack(weight, None, "int4")
    with pytest.raises(HeliosError, match="there are no kernels for 'int3'"):
        kernels(isa).pack(weight, None, "int3")


@every_isa
@every_format
def test_memory_is_what_the_format_needs_but_for_the_last_panel(isa: str, fmt: str) -> None:
    packed = kernels(isa).pack(_matrix(960, 576, 0), None, fmt)
    exact = 960 * 576 * {"int8": 8, "int4": 5}.get(fmt, 16) // 8 + (8 * 960 if fmt == "int8" else 0)
    assert exact <= packed.nbytes < exact + 4096
