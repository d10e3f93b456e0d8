"""Random models, steps and pages for tests of the kernels, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from helios_server.native.layers import Layer, Shape, Step
from helios_server.native.library import Library
from hypothesis import strategies as st
from torch import Tensor

from tests.native.oracle import Weights, stored

POSITIONS = 400
HEAD_DIMS = (64, 80, 96, 128, 2, 6, 34, 72, 130)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kv_heads, group = draw(
        st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1), (1, 5), (2, 4), (1, 8), (1, 6), (1, 7), (1, 50)])
    )
    return Shape(
        hidden=draw(st.integers(8, 90)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from(HEAD_DIMS)),
        inner=draw(st.integers(8, 90)),
        eps=1e-5,
        page_tokens=draw(st.sampled_from([16, 1, 5, 32, 7, 64, 100])),
        kv=draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8])),
    )


@dataclass(frozen=True)
class Row:
    """New tokens of one sequence: `count` of them behind `before` that its pages hold already."""

    before: int
    count: int


def rows() -> st.SearchStrategy[list[Row]]:
    decode = st.builds(Row, st.integers(0, 150), st.just(1))
    prompt = st.builds(Row, st.integers(0, 100), st.integers(1, 40))
    return st.lists(st.one_of(decode, prompt), min_size=1, max_size=6)


class World:
    """A model of a few layers, slabs with old keys and values, and a step of rows on shuffled pages. Whatever
    no token attends to is NaN."""

    def __init__(self, shape: Shape, rows: Sequence[Row], seed: int, layers: int = 2, biases: bool = False,
                 norms: bool = False) -> None:  # fmt: skip
        self.shape, self.rows = shape, list(rows)
        g = torch.Generator().manual_seed(seed)
        self.weights = [Weights.random(shape, g, biases, norms) for _ in range(layers)]
        page = shape.page_tokens
        needed = [-(-(row.before + row.count) // page) for row in rows]
        order = torch.randperm(sum(needed) + 2, generator=g, dtype=torch.int64)[: sum(needed)].split(needed)
        self.pages = [ids.tolist() for ids in order]
        self.slabs = [self._slab(g, sum(needed) + 2) for _ in range(layers)]
        angles = torch.arange(POSITIONS)[:, None] * 10 ** -torch.linspace(0, 4, shape.head_dim // 2)[None, :]
        self.cos, self.sin = angles.cos().contiguous(), angles.sin().contiguous()
        self.hidden = torch.randn(sum(row.count for row in rows), shape.hidden, generator=g)

    def _slab(self, g: torch.Generator, pages: int) -> Tensor:
        nothing = -1 if self.shape.kv == torch.int8 else torch.nan  # of such bytes the unit is NaN too
        slab = torch.full(self.shape.slab(pages), nothing, dtype=self.shape.kv)
        for ids, row in zip(self.pages, self.rows, strict=True):
            for place in range(row.before):
                number, offset = divmod(place, self.shape.page_tokens)
                old = torch.randn(2, self.shape.kv_heads, self.shape.head_dim, generator=g)
                slab[ids[number], :, :, offset] = stored(old, self.shape.kv)
        return slab

    def step(self, rows: Sequence[tuple[int, int, int]] | None = None) -> Step:
        """rows: (index, first, stop) of the row's new tokens; None: all of all."""
        rows = rows or [(index, 0, row.count) for index, row in enumerate(self.rows)]
        width = max(len(self.pages[index]) for index, _, _ in rows)
        table = torch.full((len(rows), width), -1, dtype=torch.int32)
        places, table_rows = list[int](), list[int]()
        slots = list[int]()
        for at, (index, first, stop) in enumerate(rows):
            table[at, : len(self.pages[index])] = torch.tensor(self.pages[index])
            for place in range(self.rows[index].before + first, self.rows[index].before + stop):
                number, offset = divmod(place, self.shape.page_tokens)
                places.append(place)
                table_rows.append(at)
                slots.append(self.pages[index][number] * self.shape.page_tokens + offset)
        positions = torch.tensor(places)
        return Step(
            positions, torch.tensor(slots), torch.tensor(table_rows, dtype=torch.int32),
            (positions + 1).to(torch.int32), table, self.cos, self.sin,
        )  # fmt: skip

    def tokens(self, index: int, first: int, stop: int) -> slice:
        """Where these new tokens of a row stand in `hidden`."""
        start = sum(row.count for row in self.rows[:index])
        return slice(start + first, start + stop)

    def run(
        self,
        kernels: Library,
        layers: Sequence[Layer],
        rows: Sequence[tuple[int, int, int]] | None = None,
        slabs: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The hidden states of these tokens behind the layers. slabs: written to; None: a copy."""
        chosen = rows or [(index, 0, row.count) for index, row in enumerate(self.rows)]
        hidden = torch.cat([self.hidden[self.tokens(*row)] for row in chosen]).clone()
        kept = [slab.clone() for slab in self.slabs] if slabs is None else slabs
        kernels.run_layers(self.shape, layers, hidden, self.step(rows), kept)
        return hidden

    def packed(self, kernels: Library, fmt: str) -> list[Layer]:
        return [weights.packed(kernels, fmt) for weights in self.weights]


def of(shape: Shape, **changes: object) -> Shape:
    return replace(shape, **changes)  # type: ignore[arg-type]
