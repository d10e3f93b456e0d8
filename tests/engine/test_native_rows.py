"""On the native path a row's result is the same, bit for bit: alone and in company, in one step and token by
token, on one thread and on two, wherever its pages lie and whatever they held."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helios_server.engine.survey import survey
from helios_server.exits.head import KINDS, ExitHead, head_shapes
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from torch import Tensor

from tests.checkpoints import VOCAB, make_checkpoint
from tests.engine.natives import FORMATS, Crowd, Part, computing_with, every_format, load, needs_kernels
from tests.native.libraries import kernels, names

LENGTHS = (1, 2, 15, 16, 17, 33, 70, 100)
FAMILIES = ("llama", "qwen2", "qwen3")
ODD = {"hidden_size": 60, "head_dim": 20, "intermediate_size": 100}
"""Sizes that no vector and no tile divides."""


@pytest.fixture(params=names())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with computing_with(request.param):
        yield request.param


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(VOCAB, (length,), generator=generator) for length in LENGTHS]


def alone(backbone: Backbone) -> list[Tensor]:
    """Each prompt by itself, whole, in pages that follow each other."""
    return [Crowd(backbone, [ids], seed=0).run([[Part(0, len(ids))]])[0] for ids in prompts()]


def in_chunks(most: int, seed: int) -> list[list[Part]]:
    """All prompts at once, each cut in pieces of 1 to `most` tokens, in an order that changes by step."""
    dice, left = random.Random(seed), dict(enumerate(LENGTHS))
    steps = []
    while left:
        parts = [Part(index, min(left[index], dice.randint(1, most))) for index in left]
        dice.shuffle(parts)
        steps.append(parts)
        left = {part.index: left[part.index] - part.count for part in parts}
        left = {index: count for index, count in left.items() if count}
    return steps


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@every_format
@pytest.mark.parametrize("family", FAMILIES)
def test_neither_company_nor_chunks_change_a_bit(tmp_path: Path, isa: str, dtype: str, family: str) -> None:
    backbone = load(make_checkpoint(tmp_path / family, family, layers=3, seed=1), dtype)
    expected = alone(backbone)
    assert all(logits.isfinite().all() for logits in expected)
    for most, seed in ((200, 1), (1, 2), (7, 3), (40, 4)):
        assert same(Crowd(backbone, prompts(), seed).run(in_chunks(most, seed)), expected), most


@every_format
def test_the_number_of_threads_changes_no_bit(
    tmp_path: Path, isa: str, dtype: str, two_threads: None
) -> None:
    backbone = load(make_checkpoint(tmp_path, layers=3, seed=1, **ODD), dtype)
    by_two = Crowd(backbone, prompts(), 1).run(in_chunks(40, 1))
    torch.set_num_threads(1)
    assert same(by_two, alone(backbone))


@needs_kernels
@pytest.mark.parametrize("dtype", [*FORMATS, "float32"])
def test_a_layer_that_is_not_there_is_never_passed_over(tmp_path: Path, dtype: str) -> None:
    backbone = Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, layers=3)), 2, dtype=dtype)
    step = whole_sequences(backbone.layout, [4])
    with pytest.raises(IndexError):
        backbone.run_layers(backbone.embed(torch.arange(4), step.positions), 0, 3, step)


@every_format
def test_a_row_that_overflowed_changes_no_other(tmp_path: Path, isa: str, dtype: str) -> None:
    path = make_checkpoint(tmp_path, layers=3, seed=1, tied=False)
    backbone = load(path, dtype)
    expected = alone(backbone)
    assert backbone.embedding is not None
    backbone.embedding[prompts()[3][-1]] = float("inf")  # a token of some prompts
    found = Crowd(backbone, prompts(), 1).run(in_chunks(40, 1))
    spoilt = prompts()[3][-1]
    for ids, before, after in zip(prompts(), expected, found, strict=True):
        first = next((place for place, token in enumerate(ids) if token == spoilt), len(ids))
        assert torch.equal(before[:first], after[:first])
        assert not after[first:].isfinite().all(dim=1).any()


@every_format
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_treats_each_row_alone(
    tmp_path: Path, isa: str, dtype: str, kind: str, two_threads: None
) -> None:
    backbone = load(make_checkpoint(tmp_path, layers=1, **ODD), dtype)
    head = random_head(kind, backbone)
    hidden = torch.randn(130, 60, generator=torch.Generator().manual_seed(3))
    whole = head.apply(hidden)
    torch.set_num_threads(1)
    for rows in (1, 2, 31, 129):
        assert torch.equal(head.apply(hidden[:rows]), whole[:rows])
        assert torch.equal(head.apply(hidden[-rows:]), whole[-rows:])


def test_rows_are_surveyed_as_torch_does(isa: str) -> None:
    logits = 4 * torch.randn(9, 1003, generator=torch.Generator().manual_seed(6))
    logits[2, [7, 900]] = 50.0  # of equals the first
    logits[5, 1002] = float("nan")
    native, torchs = survey(logits, kernels(isa)), survey(logits)
    assert native.finite == torchs.finite == [True] * 5 + [False] + [True] * 3
    for row in (0, 1, 2, 3, 4, 6, 7, 8):
        assert (native.best[row], native.highest[row]) == (torchs.best[row], torchs.highest[row])
        assert native.total[row] == pytest.approx(torchs.total[row], rel=1e-5)
        alone = survey(logits[row : row + 1], kernels(isa))
        assert (alone.best[0], alone.total[0]) == (native.best[row], native.total[row])


def random_head(kind: str, backbone: Backbone) -> ExitHead:
    generator = torch.Generator().manual_seed(4)
    shapes = head_shapes(kind, backbone.config.hidden_size)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return KINDS[kind](tensors, backbone)
