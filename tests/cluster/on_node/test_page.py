"""The page of a pod, through its Service, in Debian's Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_operator.cluster.kinds import SERVICE

from tests import browser
from tests.cluster.on_node.served import ServedPlace
from tests.rpc.openai_door.page_walk import walk
from tests.rpc.openai_door.real import EXITS, LAYERS


@pytest.mark.skipif(browser.chromium() is None, reason=browser.NOT_RUN)
async def test_a_prompt_is_answered_in_colours(place: ServedPlace, tmp_path: Path) -> None:
    await place.create("examples/quickstart.yaml")
    await place.serving()
    service = await place.admin.get(SERVICE, place.namespace, "chat")
    assert service is not None
    [port] = [each["port"] for each in service["spec"]["ports"] if each["name"] == "http"]
    await walk(f"http://{service['spec']['clusterIP']}:{port}/", tmp_path, EXITS[0], LAYERS)
