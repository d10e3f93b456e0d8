"""These tests need a cluster by KUBECONFIG, and to be asked for: `make test-cluster`. They install HELIOS's
CRDs there, and work in namespaces of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint
from tests.cluster.live.scene import RECORD, Measured, Scene, scene

if not (os.environ.get("HELIOS_TEST_CLUSTER") and os.environ.get("KUBECONFIG")):
    collect_ignore_glob = ["test_*.py"]

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the claim `models` holds two tiny backbones."""
    folder = tmp_path_factory.mktemp("claims")
    make_checkpoint(folder / "models" / "deep", layers=4, seed=0)
    make_checkpoint(folder / "models" / "flat", layers=3, seed=1)
    return folder


@pytest.fixture(scope="session")
def measured(claims: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What a first run finds out, from nothing to Ready: the loop itself."""
    folder = tmp_path_factory.mktemp("first")

    async def first_run() -> Measured:
        async with scene(folder, claims) as place:
            await place.start_operator()
            await place.create(place.deployment())
            first = await place.until(lambda s: s.get("active"), what="never served")
            assert first["status"]["active"]["layerBudget"] in (3, 4)  # the reference, at full depth
            obj = await place.ready()
            census = await place.census()
            assert len(census["HeliosProfile"]) == 4, census
            assert obj["status"]["endpoint"] == f"chat.{place.namespace}.svc:8033"
            assert len(census["Deployment"]) == 1, census
            return await Measured.of(place)

    return asyncio.run(first_run())


@pytest.fixture
async def place(tmp_path: Path, claims: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path, claims) as made:
        yield made


def pytest_sessionfinish() -> None:
    """Each process of a run leaves what it saw of rights, for `test_rights.py` to sum up after the run."""
    if folder := os.environ.get("HELIOS_RIGHTS_SEEN"):
        RECORD.save(Path(folder) / f"{os.getpid()}.json")
