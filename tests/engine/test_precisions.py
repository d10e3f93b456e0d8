"""In every precision a row's bits are its own, in company, in chunks and on any number of threads; and the
plain loop comes to the same tokens, on torch's path too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helios_contract.serves import PRECISIONS, Precision
from helios_server.engine.offline import Weights, generate
from helios_server.engine.request import Served, Span
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.head import BareHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from torch import Tensor

from tests.checkpoints import VOCAB, make_checkpoint
from tests.engine.natives import TORCH, Crowd, Part, computing_with, load
from tests.engine.test_native_rows import ODD, same
from tests.native.libraries import names

QUANTISED = [precision for precision in PRECISIONS if precision != Precision()]
every_precision = pytest.mark.parametrize("precision", QUANTISED, ids=str)
LENGTHS = (1, 17, 40, 70)
NEW = 4
"""Tokens that are generated."""
CHUNKS = ([(0, 1), (3, 33)], [(1, 16), (2, 39), (3, 5)], [(3, 32), (2, 1), (1, 1)])
"""Steps, each of (sequence, tokens)."""


@pytest.fixture(params=names())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with computing_with(request.param):
        yield request.param


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(VOCAB, (length,), generator=generator) for length in LENGTHS]


def in_chunks() -> list[list[Part]]:
    return [[Part(*part) for part in step] for step in CHUNKS]


def alone(backbone: Backbone) -> list[Tensor]:
    """Each prompt by itself, whole, in pages that follow each other."""
    return [Crowd(backbone, [ids], seed=0).run([[Part(0, len(ids))]])[0] for ids in prompts()]


def greedily(backbone: Backbone, seed: int) -> list[list[int]]:
    """What each prompt goes on with, all of them in one crowd: prefilled in chunks, then token by token."""
    texts = prompts()
    crowd = Crowd(backbone, [torch.cat((ids, torch.zeros(NEW, dtype=torch.int64))) for ids in texts], seed)
    last = [rows[-1] for rows in crowd.run(in_chunks())]
    chosen: list[list[int]] = [[] for _ in texts]
    for _ in range(NEW):
        for index, logits in enumerate(last):
            token = int(logits.argmax())
            crowd.prompt(index)[LENGTHS[index] + len(chosen[index])] = token
            chosen[index].append(token)
        last = [rows[-1] for rows in crowd.run([[Part(index, 1) for index in range(len(texts))]])]
    return chosen


def offline(backbone: Backbone) -> list[tuple[int, ...]]:
    spans = [Span(0, Served("a", "file:///a", "", "", "", backbone.num_loaded))]
    weights = Weights(backbone, BareHead(backbone))
    sampling = SamplingParams(temperature=0.0)
    return [
        generate(lambda _: weights, "a", tuple(ids.tolist()), sampling, spans, NEW).token_ids
        for ids in prompts()
    ]


@pytest.mark.parametrize("precision", [Precision("int8", "int8"), Precision("int4", "int8")], ids=str)
def test_neither_company_nor_chunks_nor_threads_change_a_bit(
    tmp_path: Path, isa: str, precision: Precision
) -> None:
    sizes = ODD if precision.weight_dtype == "int4" else {}
    backbone = load(make_checkpoint(tmp_path, "qwen2", layers=2, seed=1, **sizes), "float16", None, precision)
    expected = alone(backbone)
    assert all(logits.isfinite().all() for logits in expected)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = Crowd(backbone, prompts(), threads).run(in_chunks())
        torch.set_num_threads(1)
        assert same(found, expected), threads


@every_precision
def test_the_plain_loop_comes_to_the_same_tokens(tmp_path: Path, isa: str, precision: Precision) -> None:
    backbone = load(make_checkpoint(tmp_path, layers=2, seed=3), "float16", None, precision)
    assert greedily(backbone, 5) == [list(ids) for ids in offline(backbone)]


@every_precision
@pytest.mark.parametrize("family", ["llama", "opt", "gemma3_text"])
def test_on_torchs_path_as_well(tmp_path: Path, family: str, precision: Precision) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, family, layers=2, seed=3))
    with computing_with(TORCH):
        backbone = Backbone.load(checkpoint, 2, dtype="float64", precision=precision)
    assert greedily(backbone, 5) == [list(ids) for ids in offline(backbone)]


@every_precision
def test_layers_that_come_later_are_held_alike(tmp_path: Path, precision: Precision) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=3, seed=3))
    whole = Backbone.load(checkpoint, 3, dtype="float16", precision=precision)
    grown = Backbone.load(checkpoint, 1, dtype="float16", precision=precision)
    grown.attach([grown.load_layer(1), grown.load_layer(2)])
    assert grown.resident_bytes == whole.resident_bytes
    assert same(alone(grown), alone(whole))
