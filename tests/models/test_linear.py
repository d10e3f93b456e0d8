"""Matrix kernels, fbgemm's and our own: exact enough, independent of the batch, and as large as they say."""

from __future__ import annotations

import ctypes

import pytest
import torch
from helios_server.engine import host_memory
from helios_server.errors import HeliosError, UnsupportedModelError
from helios_server.models.linear import AUTO, Linear, Numerics, SwiGlu, default_dtype, packed_bytes

from tests.engine.natives import TORCH, computing_with, every_format, needs_kernels
from tests.native.libraries import every_isa


class _Heap(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "ford",
            "keep",
        )
    ]


def heap_bytes() -> int:
    """Bytes that the process has allocated and not freed, as the C library counts them."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = _Heap
    heap = libc.mallinfo2()
    return int(heap.uordblks + heap.hblkhd)


@pytest.mark.parametrize(("out_features", "in_features"), [(1536, 576), (576, 1536), (960, 576), (3072, 512)])
def test_a_packed_matrix_takes_the_memory_it_says(out_features: int, in_features: int) -> None:
    weight = torch.randn(out_features, in_features)
    numerics = Numerics.of("cpu", "float16", native=False)
    Linear(weight, None, numerics)
    before = heap_bytes()
    kept = [Linear(weight, None, numerics) for _ in range(8)]
    taken = heap_bytes() - before
    assert taken == pytest.approx(sum(linear.nbytes for linear in kept), rel=0.02)
    assert kept[0].nbytes == packed_bytes(out_features, in_features)


@every_isa
@every_format
@pytest.mark.parametrize(("out_features", "in_features"), [(1536, 576), (576, 1536), (960, 576), (3072, 512)])
def test_natively_a_matrix_takes_two_bytes_an_element(
    isa: str, dtype: str, out_features: int, in_features: int
) -> None:
    with computing_with(isa):
        numerics = Numerics.of("cpu", dtype)
    weight = torch.randn(out_features, in_features)
    Linear(weight, None, numerics)
    host_memory.trim()  # what earlier tests freed does not count
    before = host_memory.anonymous_bytes()
    kept = [Linear(weight, None, numerics) for _ in range(24)]
    taken = host_memory.anonymous_bytes() - before
    assert kept[0].nbytes == pytest.approx(2 * out_features * in_features, rel=0.002)
    assert taken == pytest.approx(sum(linear.nbytes for linear in kept), rel=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_lose_only_what_float16_loses(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(96, 128, generator=generator), torch.randn(5, 128, generator=generator)
    offset = torch.randn(96, generator=generator) if bias else None
    exact = torch.nn.functional.linear(x, weight.half().float(), offset)
    packed = Linear(weight, offset, Numerics.of("cpu", "float16", native=False))(x)
    assert packed.dtype == torch.float32
    assert torch.allclose(packed, exact, atol=1e-3)


def test_a_packed_row_does_not_depend_on_the_rows_beside_it() -> None:
    generator = torch.Generator().manual_seed(0)
    numerics = Numerics.of("cpu", "float16", native=False)
    linear = Linear(torch.randn(320, 192, generator=generator), None, numerics)
    x = torch.randn(256, 192, generator=generator)
    whole = linear(x)
    for rows in (*range(1, 40), 64, 100, 255):
        assert torch.equal(linear(x[:rows]), whole[:rows])
        assert torch.equal(linear(x[-rows:]), whole[-rows:])


@every_isa
@every_format
def test_natively_weights_and_cache_have_16_bits_and_activations_32(isa: str, dtype: str) -> None:
    with computing_with(isa):
        numerics = Numerics.of("cpu", dtype)
        assert numerics.library is not None
    stored = getattr(torch, dtype)
    assert numerics.weights == numerics.keys_and_values == stored
    assert numerics.activations == torch.float32


@pytest.mark.parametrize(("dtype", "activations"), [("float16", torch.float32), ("bfloat16", torch.bfloat16)])
def test_without_kernels_torch_computes_as_it_can(dtype: str, activations: torch.dtype) -> None:
    with computing_with(TORCH):
        numerics = Numerics.of("cpu", dtype)
    assert numerics.library is None
    assert numerics.activations == numerics.keys_and_values == activations


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_formats_are_torchs(dtype: str) -> None:
    numerics = Numerics.of("cpu", dtype)
    assert numerics.library is None
    assert numerics.weights == numerics.activations == numerics.keys_and_values == getattr(torch, dtype)


@every_isa
def test_auto_is_what_the_processor_multiplies(isa: str) -> None:
    with computing_with(isa):
        expected = "float16" if isa in ("avx2", "avx512") else "bfloat16"
        assert default_dtype("cpu") == Numerics.of("cpu").dtype == Numerics.of("cpu", AUTO).dtype == expected


def test_auto_without_kernels_and_on_an_accelerator() -> None:
    with computing_with(TORCH):
        assert default_dtype("cpu") == "float16"
        assert default_dtype("cuda") == "bfloat16"


@every_isa
@every_format
@pytest.mark.parametrize("bias", [True, False])
def test_a_native_product_loses_only_what_its_format_loses(isa: str, dtype: str, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(2, 90, 70, generator=generator)[0], torch.randn(5, 70, generator=generator)
    offset = torch.randn(90, generator=generator) if bias else None
    rounded = getattr(torch, dtype)
    with computing_with(isa):
        numerics = Numerics.of("cpu", dtype)
    exact = torch.nn.functional.linear(x, weight.to(rounded).float(), offset)
    linear = Linear(weight, offset, numerics)
    assert (linear(x) - exact).abs().max() < (
        1e-4 if dtype == "float16" else 0.1
    )  # pairs and tiles round x as well
    assert torch.equal(linear.rows(torch.tensor([3, 0, 89])), weight.to(rounded).float()[[3, 0, 89]])


@every_isa
@every_format
def test_a_native_gate_is_torchs(isa: str, dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gate, up = 0.1 * torch.randn(2, 90, 70, generator=generator)
    x = torch.randn(5, 70, generator=generator)
    with computing_with(isa):
        native = SwiGlu(gate, up, Numerics.of("cpu", dtype))
    assert (native(x) - SwiGlu(gate, up, Numerics.of("cpu", "float32"))(x)).abs().max() < 0.05


@needs_kernels
@pytest.mark.parametrize("value", [70000.0, -1e9])
def test_a_weight_that_float16_cannot_hold_is_named(value: float) -> None:
    weight = torch.ones(8, 8)
    weight[3, 3] = value
    with pytest.raises(HeliosError, match=r"dtype: float16 cannot hold a weight"):
        Linear(weight, None, Numerics.of("cpu", "float16"))


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(device: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"device: '{device}'"):
        Numerics.of(device)
