"""Checkpoints that the engine's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helios_server.engine import host_memory
from helios_server.models.store import ensure_smollm2

from tests.checkpoints import make_checkpoint
from tests.engine import oracle

LAYERS = 6


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float64 model of six layers."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model", layers=LAYERS, seed=1)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same tokenizer, shallower."""
    return make_checkpoint(tmp_path_factory.mktemp("other") / "model", layers=4, seed=2)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model, from the user's cache."""
    return ensure_smollm2()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny matrices gain nothing from a second thread, and lose much when other work wants its core."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _memory_goes_back() -> Iterator[None]:
    """What a file loaded goes with it: a worker runs hundreds of files."""
    yield
    oracle.forget()
    host_memory.trim()
