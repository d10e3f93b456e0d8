"""What a page of the cache held before must not be seen by the row that has it now."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.engine.engine import Engine
from helios_server.engine.kv_pool import KvPool
from helios_server.models.attention import PagedAttention
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.linear import Numerics
from helios_server.models.rows import Stretch, rows_of

from tests.checkpoints import make_checkpoint, spoil_token
from tests.engine.company import DTYPES, SPOILT, answers, ask, ask_at_once, failure, serving
from tests.engine.helpers import Stream, prompt_of, send

JUNK = (float("nan"), float("inf"), -float("inf"), 1e38)
PAGES = 60


def scribble(engine: Engine, value: float) -> None:
    """Writes over every slot of the cache that holds no token of a running request, and none to be found, as
    near to the value as its format comes."""
    pool, page_tokens = engine.serving.pool, engine.serving.config.page_tokens
    idle = torch.ones(pool.pages, page_tokens, dtype=torch.bool)
    for sequence in engine.serving.scheduler.running:
        for place in range(sequence.computed):
            idle[sequence.pages[place // page_tokens], place % page_tokens] = False
    for page in engine.serving.scheduler.prefixes._by_page:
        idle[page] = False
    pages, offsets = idle.nonzero(as_tuple=True)
    junk = torch.tensor(value).to(pool.layout.dtype)
    for layer in range(pool.layers):
        pool.slab(layer)[pages, :, :, offsets] = junk


def answers_over(path: Path, dtype: str, junk: float | None) -> list[tuple[Any, ...]]:
    """Of requests that come at once, while pages come, go and move before every step over junk."""
    streams: list[Stream] = []
    pages = itertools.islice(itertools.cycle((PAGES, 34, PAGES, 40, 36)), 60)

    def before_step() -> None:
        if (wanted := next(pages, None)) is None:
            return
        engine.serving.resize(max(wanted, engine.serving.scheduler.pages.used))
        if junk is not None:
            scribble(engine, junk)
        if not streams:
            streams.extend(ask(engine))
        engine.at_boundary(before_step)

    with serving(path, dtype) as engine:
        engine.at_boundary(before_step).result()
        return answers(streams)


@pytest.fixture(scope="module")
def fresh(tiny: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    return cache(lambda dtype: answers_over(tiny, dtype, None))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_page_held_before_does_not_matter(
    tiny: Path, fresh: Callable[[str], list[tuple[Any, ...]]], dtype: str, junk: float
) -> None:
    assert answers_over(tiny, dtype, junk) == fresh(dtype)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_reads_nothing_beyond_a_row(tiny: Path, dtype: str, junk: float) -> None:
    """Rows of every remainder of a page, beside longer ones, in a cache of zeros and in one of junk."""
    numerics, shape = Numerics.of("cpu", dtype, native=False), Checkpoint.open(tiny).config
    contexts = (1, 2, 15, 16, 17, 31, 33, 64, 5)
    generator = torch.Generator().manual_seed(2)

    def random(tokens: int, heads: int) -> torch.Tensor:
        return torch.randn(tokens, heads, shape.head_dim, generator=generator).to(numerics.activations)

    k, v = random(sum(contexts), shape.num_kv_heads), random(sum(contexts), shape.num_kv_heads)
    q = random(len(contexts), shape.num_heads)
    pages = [range(5 * index, 5 * index + 5) for index in range(len(contexts))]
    prompts = [Stretch(0, context, held) for context, held in zip(contexts, pages, strict=True)]
    newest = [Stretch(context - 1, 1, held) for context, held in zip(contexts, pages, strict=True)]
    last = torch.tensor(contexts).cumsum(0) - 1

    def attended(held: float) -> torch.Tensor:
        pool = KvPool(shape, numerics, 1, 5 * len(contexts), 16)
        slab = pool.slab(0).fill_(held)
        everywhere = k.new_zeros(len(k), *q.shape[1:])
        PagedAttention(rows_of(prompts, 16), pool.layout).attend(slab, everywhere, k, v, None)
        return PagedAttention(rows_of(newest, 16), pool.layout).attend(slab, q, k[last], v[last], None)

    assert torch.equal(attended(junk), attended(0.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pages_of_a_row_that_overflowed_serve_as_fresh_ones(tmp_path: Path, dtype: str, value: float) -> None:
    path = spoil_token(make_checkpoint(tmp_path / "model", layers=6, tied=False, seed=4), SPOILT, value)

    with serving(path, dtype) as engine:
        fresh = answers(ask_at_once(engine))
    with serving(path, dtype) as engine:
        for length in (200, 100, 47, 31):
            streams = [send(engine, (*prompt_of(length), SPOILT, 1), depth=depth) for depth in (0, 2, 4)]
            for stream in streams:
                assert str(failure(stream).error).startswith("logits: not finite; ")
        assert answers(ask_at_once(engine)) == fresh
