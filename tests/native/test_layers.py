"""Segments of layers against float64."""

from __future__ import annotations

import pytest
import torch
from helios_server.native.layers import Shape
from helios_server.native.matrix import FORMATS
from hypothesis import given
from hypothesis import strategies as st

from tests.native.libraries import every_isa, kernels, of_each_kernel
from tests.native.oracle import rounds_rows, run_layer
from tests.native.worlds import Row, World, rows, shapes

every_format = pytest.mark.parametrize("fmt", FORMATS)
# Of the largest value that passes through: a float32 sum's rounding, grown by norms and softmax; 16-bit
# integers, of which a long row has fewer; tiles and pairs have every row in bfloat16; keys and values are
# rounded on both sides, which may fall apart by one step.
_FORMAT = {"float16": 2.0**-14, "bfloat16": 2.0**-14, "int8": 2.0**-11, "int4": 2.0**-14}
_ROUNDED = 2.0**-5
_KV = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.int8: 2.0**-7}


def _tolerance(isa: str, fmt: str, shape: Shape) -> float:
    longest = max(shape.hidden, shape.heads * shape.head_dim, shape.inner)
    integers = 8 * (127 * longest) / 2**31 if fmt == "int8" else 0
    return _FORMAT[fmt] + integers + 4 * _KV[shape.kv] + (_ROUNDED if rounds_rows(isa, fmt) else 0)


@every_isa
@every_format
@given(shapes(), rows(), st.booleans(), st.booleans(), st.integers(0, 999))
@of_each_kernel
def test_a_segment_is_within_the_tolerance_of_its_format(
    isa: str, fmt: str, shape: Shape, rows: list[Row], biases: bool, norms: bool, seed: int
) -> None:
    library = kernels(isa)
    world = World(shape, rows, seed, biases=biases, norms=norms)
    got = world.run(library, world.packed(library, fmt))
    exact, slabs = world.hidden.double(), [slab.clone() for slab in world.slabs]
    for weights, slab in zip(world.weights, slabs, strict=True):
        exact = run_layer(shape, weights, fmt, exact, world.step(), slab)
    largest = max(exact.abs().max().item(), world.hidden.abs().max().item(), 1)
    assert (got.double() - exact).abs().max().item() <= _tolerance(isa, fmt, shape) * largest
