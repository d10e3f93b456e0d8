"""One tiny model and two head bundles for all tests of the doors; a pod that many tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helios_server.rpc import server

from tests.checkpoints import make_checkpoint
from tests.profile.planted import noise_bundle
from tests.rpc.pods import EXITS, LAYERS, Served, serving


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rpc") / "tiny"
    return make_checkpoint(directory, layers=LAYERS, max_position_embeddings=4096)


@pytest.fixture(scope="session")
def heads(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_bundle(tmp_path_factory.mktemp("heads") / "noise", tiny, EXITS)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are rotated are looked at more often than every second."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)


@pytest.fixture
async def pod(tiny: Path) -> AsyncIterator[Served]:
    """A fresh pod at full depth."""
    async with serving(tiny) as served:
        yield served
