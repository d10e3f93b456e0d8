"""Another precision on one machine: measured beside what is known, then told to the running pod."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_operator.local.runtime import LocalRuntime

from tests.local.world import PATIENCE, active, deployment, follow_offline, is_ready, options, traffic
from tests.sizes import LONG

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it measures a backbone again"),
]


async def test_it_is_measured_and_then_told_to_the_running_pod(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        serving, pods = active(runtime), runtime.pids("chat")
        candidates = [
            each | {"weightDtypes": ["int8"], "kvCacheDtypes": ["int8"]}
            for each in deployment()["spec"]["candidates"]
            if each["name"] == serving["candidate"]
        ]
        async with traffic(runtime.front_address("chat"), tokens=200) as answered:
            runtime.patch("chat", ("candidates",), candidates)
            await runtime.wait_for(lambda r: active(r).get("weightDtype") == "int8", timeout=2 * PATIENCE)
        assert runtime.pids("chat") == pods, "a pod was started"
        entry = runtime.deployment("chat")["status"]["history"][-1]
        assert (entry["kind"], entry["to"]["kvCacheDtype"], entry["result"]) == (
            "Requantize",
            "int8",
            "Promoted",
        )
        assert len(runtime.profiles()) == 6
        follow_offline(answered, volumes)
