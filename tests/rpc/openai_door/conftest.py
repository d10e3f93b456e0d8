"""A pod that many wrong requests share: none of them may leave anything in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rpc.pods import Served, serving


@pytest.fixture
async def shared_pod(tiny: Path) -> AsyncIterator[Served]:
    async with serving(tiny) as served:
        yield served
