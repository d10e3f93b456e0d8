"""A pod that many requests share, NVIDIA's client beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.rpc.oip_door.triton import Triton
from tests.rpc.pods import Served, serving


@pytest.fixture(scope="session")
def triton() -> Iterator[Triton]:
    client = Triton()
    yield client
    client.close()


@pytest.fixture
async def shared_pod(tiny: Path) -> AsyncIterator[Served]:
    async with serving(tiny) as served:
        yield served
