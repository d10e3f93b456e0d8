"""Matrix kernels: exact enough, independent of the batch, and as large as they say."""

from __future__ import annotations

import ctypes

import pytest
import torch
from helios_server.errors import UnsupportedModelError
from helios_server.models.linear import Linear, Numerics, packed_bytes


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
    numerics = Numerics.of("cpu", "float16")
    Linear(weight, None, numerics)
    before = heap_bytes()
    kept = [Linear(weight, None, numerics) for _ in range(8)]
    taken = heap_bytes() - before
    assert taken == pytest.approx(sum(linear.nbytes for linear in kept), rel=0.02)
    assert kept[0].nbytes == packed_bytes(out_features, in_features)


@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_lose_only_what_float16_loses(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(96, 128, generator=generator), torch.randn(5, 128, generator=generator)
    offset = torch.randn(96, generator=generator) if bias else None
    exact = torch.nn.functional.linear(x, weight.half().float(), offset)
    packed = Linear(weight, offset, Numerics.of("cpu", "float16"))(x)
    assert packed.dtype == torch.float32
    assert torch.allclose(packed, exact, atol=1e-3)


def test_a_packed_row_does_not_depend_on_the_rows_beside_it() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = Linear(torch.randn(320, 192, generator=generator), None, Numerics.of("cpu", "float16"))
    x = torch.randn(256, 192, generator=generator)
    whole = linear(x)
    for rows in (*range(1, 40), 64, 100, 255):
        assert torch.equal(linear(x[:rows]), whole[:rows])
        assert torch.equal(linear(x[-rows:]), whole[-rows:])


def test_the_processors_default_is_float16_weights_and_float32_activations() -> None:
    numerics = Numerics.of("cpu")
    assert (numerics.dtype, numerics.weights, numerics.activations) == (
        "float16",
        torch.float16,
        torch.float32,
    )


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(device: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"device: '{device}'"):
        Numerics.of(device)
