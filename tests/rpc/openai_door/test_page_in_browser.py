"""The page in Debian's Chromium, before the real model: what is typed, and what is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import browser
from tests.rpc.openai_door.clients import url
from tests.rpc.openai_door.page_walk import walk
from tests.rpc.openai_door.real import EXITS, LAYERS, real_pod
from tests.sizes import LONG


@pytest.mark.long
@pytest.mark.skipif(
    not LONG, reason="`make test-long` runs it, as `make test-cluster-node` does: a browser takes its time"
)
@pytest.mark.skipif(browser.chromium() is None, reason=browser.NOT_RUN)
async def test_a_prompt_is_answered_in_colours(tmp_path: Path) -> None:
    async with real_pod() as pod:
        await walk(f"{url(pod)}/", tmp_path, EXITS[0], LAYERS)
