"""What a row's bits may not depend on: the rows beside it, how its prompt is cut, the number of threads, what
lies on its pages beyond its context."""

from __future__ import annotations

import pytest
import torch
from helios_server.native.layers import Shape
from helios_server.native.matrix import FORMATS
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.native.libraries import every_isa, kernels, of_each_kernel
from tests.native.worlds import Row, World, rows, shapes

every_format = pytest.mark.parametrize("fmt", FORMATS)
THREADS = (2, 3, 5)


@every_isa
@every_format
@given(shapes(), rows(), st.integers(0, 999), st.sampled_from(THREADS))
@of_each_kernel
def test_a_segment_with_any_number_of_threads(
    isa: str, fmt: str, shape: Shape, rows: list[Row], seed: int, threads: int
) -> None:
    world = World(shape, rows, seed)
    layers = world.packed(kernels(isa), fmt)
    alone, alone_slabs = _run(world, isa, layers, 1)
    many, many_slabs = _run(world, isa, layers, threads)
    assert torch.equal(alone, many)
    assert all(_same(a, b) for a, b in zip(alone_slabs, many_slabs, strict=True))


@every_isa
@every_format
@given(shapes(), rows(), st.integers(0, 999))
@of_each_kernel
def test_a_row_in_company_and_alone(isa: str, fmt: str, shape: Shape, rows: list[Row], seed: int) -> None:
    world, library = World(shape, rows, seed), kernels(isa)
    layers = world.packed(library, fmt)
    together = world.run(library, layers)
    for index, row in enumerate(rows):
        alone = world.run(library, layers, [(index, 0, row.count)])
        assert torch.equal(alone, together[world.tokens(index, 0, row.count)])


@every_isa
@every_format
@given(
    shapes(), st.integers(0, 80), st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 999)
)
@of_each_kernel
def test_a_prompt_whole_and_in_chunks(
    isa: str, fmt: str, shape: Shape, before: int, chunks: list[int], seed: int
) -> None:
    world, library = World(shape, [Row(before, sum(chunks))], seed), kernels(isa)
    layers = world.packed(library, fmt)
    whole, whole_slabs = _run(world, isa, layers, 1)
    slabs, parts, first = [slab.clone() for slab in world.slabs], list[Tensor](), 0
    for count in chunks:
        parts.append(world.run(library, layers, [(0, first, first + count)], slabs))
        first += count
    assert torch.equal(whole, torch.cat(parts))
    assert all(_same(a, b) for a, b in zip(whole_slabs, slabs, strict=True))


@every_isa
@given(shapes(), rows(), st.integers(0, 999), st.sampled_from([0.0, 1e30, torch.inf]))
@of_each_kernel
def test_a_segment_whatever_lies_beyond_its_contexts(
    isa: str, shape: Shape, rows: list[Row], seed: int, other: float
) -> None:
    world, library = World(shape, rows, seed), kernels(isa)
    layers = world.packed(library, "float16")
    beside_nan = world.run(library, layers)
    assert beside_nan.isfinite().all()
    slabs = [_with_other(slab, other) for slab in world.slabs]
    assert torch.equal(world.run(library, layers, slabs=slabs), beside_nan)


def _run(world: World, isa: str, layers: list, threads: int) -> tuple[Tensor, list[Tensor]]:  # type: ignore[type-arg]
    slabs = [slab.clone() for slab in world.slabs]
    return world.run(kernels(isa, threads), layers, slabs=slabs), slabs


def _with_other(slab: Tensor, other: float) -> Tensor:
    """In place of NaN, be it a value or the unit of one."""
    if slab.dtype != torch.int8:
        return slab.nan_to_num(nan=other)
    units = slab[..., -4:].contiguous().view(torch.float32).nan_to_num(nan=other)
    return torch.cat((slab[..., :-4], units.view(torch.int8)), dim=-1)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(nan=7), b.nan_to_num(nan=7)) and torch.equal(a.isnan(), b.isnan())
