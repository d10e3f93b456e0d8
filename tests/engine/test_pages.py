"""The page allocator and the pool that it stands for."""

from __future__ import annotations

import itertools

import pytest
import torch
from helios_server.engine import kv_pool
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.pages import PageAllocator
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from hypothesis import given
from hypothesis import strategies as st

CONFIG = ModelConfig.from_hf(
    {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
)


def filled_pool(layers: int, pages: int, reserved: int = 0) -> KvPool:
    """Every page of every layer holds numbers of its own."""
    pool = KvPool(CONFIG, Numerics.of("cpu", "float32"), layers, pages, 4, reserved)
    for layer in range(layers):
        pool.slab(layer)[:pages, 0] = _numbers(layer, pages)
        pool.slab(layer)[:pages, 1] = -_numbers(layer, pages)
    return pool


def _numbers(layer: int, pages: int) -> torch.Tensor:
    return (torch.arange(pages * 4 * 4).reshape(-1, 1, 4, 4) + 1000.0 * layer + 1).float()


def read(pool: KvPool, layer: int, pages: list[int]) -> torch.Tensor:
    return pool.slab(layer)[pages]


@pytest.mark.parametrize("reserved", [0, 12])
def test_resizing_keeps_pages_in_use_and_moves_those_beyond_the_end(reserved: int) -> None:
    pool = filled_pool(2, 8, reserved)
    before = [read(pool, layer, [1, 6]) for layer in range(2)]
    pool.resize(4, {6: 0})
    assert all(torch.equal(read(pool, layer, [1, 0]), before[layer]) for layer in range(2))
    pool.resize(11, {})
    assert all(torch.equal(read(pool, layer, [1, 0]), before[layer]) for layer in range(2))
    assert not read(pool, 0, [10]).any()


def test_where_two_do_not_fit_a_layers_pages_wait_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = filled_pool(2, 4)
    before = [read(pool, layer, [1, 3]) for layer in range(2)]
    make, tries = kv_pool._Slab.__init__, itertools.count()

    def only_when_the_old_one_is_gone(slab: object, *arguments: object) -> None:
        if next(tries) % 2 == 0:
            raise torch.OutOfMemoryError("no room for both")
        make(slab, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kv_pool._Slab, "__init__", only_when_the_old_one_is_gone)
    pool.resize(9, {})
    assert next(tries) == 4
    assert all(torch.equal(read(pool, layer, [1, 3]), before[layer]) for layer in range(2))


def test_layers_come_and_go_below_pages_in_use() -> None:
    pool = filled_pool(3, 4)
    before = read(pool, 0, [2])
    pool.set_layers(1)
    pool.set_layers(2)
    assert torch.equal(read(pool, 0, [2]), before)
    assert not read(pool, 1, [2]).any()
    assert pool.nbytes == 2 * 4 * 4 * 2 * 4 * 4


@given(
    st.integers(1, 20), st.lists(st.integers(1, 6), max_size=10), st.lists(st.booleans()), st.integers(1, 30)
)
def test_resizing_the_allocator_moves_exactly_what_lies_beyond(
    capacity: int, takes: list[int], returns: list[bool], target: int
) -> None:
    pages = PageAllocator(capacity, 4)
    held = [pages.take(count) for count in takes if count <= pages.free]
    for give, taken in zip(returns, tuple(held), strict=False):
        if give:
            pages.give_back(taken)
            held.remove(taken)
    used = {page for taken in held for page in taken}
    target = max(target, len(used))
    moves = pages.resize(target)
    now = {moves.get(page, page) for page in used}
    assert set(moves) == {page for page in used if page >= target}
    assert len(now) == len(used) == pages.used
    assert max(now, default=0) < target or not now
    assert pages.free == target - len(used)
    assert not now & set(pages.take(pages.free))


def test_asking_for_too_much_is_an_error() -> None:
    pages = PageAllocator(2, 4)
    with pytest.raises(ValueError, match="3 pages asked"):
        pages.take(3)
    pages.take(2)
    with pytest.raises(ValueError, match="in use"):
        pages.resize(1)
