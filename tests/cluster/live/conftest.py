"""These tests need a cluster by KUBECONFIG, and to be asked for: `make test-cluster`. They install HELIOS's
CRDs there, and work in namespaces of their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint
from tests.cluster.live.scene import Scene, scene

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


@pytest.fixture
async def place(tmp_path: Path, claims: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path, claims) as made:
        yield made
