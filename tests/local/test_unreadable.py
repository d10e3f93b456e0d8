"""On one machine too: what cannot be read, or decided about, says so; what serves goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helios_operator.local import runtime as loop
from helios_operator.local.runtime import LocalRuntime
from helios_proto.client import GenerationClient

from tests.local.world import PATIENCE, active, ask, deployment, is_ready, options

Edit = Callable[[dict[str, Any]], None]


def edit(folder: Path, change: Edit) -> None:
    """Of the first object in a folder of the state."""
    file = min(folder.glob("*.json"))
    obj = json.loads(file.read_text())
    change(obj)
    file.write_text(json.dumps(obj))


def told(runtime: LocalRuntime, type: str) -> dict[str, Any]:
    conditions = runtime.deployment("chat").get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type), {"reason": "", "message": "", "status": ""})


async def test_a_status_of_another_release_keeps_what_serves(state: Path, volumes: Path) -> None:
    def rebalance(obj: dict[str, Any]) -> None:
        obj["status"]["reassessment"]["decision"] = "Rebalance"

    edit(state / "objects" / "heliosdeployments", rebalance)
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        before = active(runtime)
        await runtime.wait_for(lambda r: told(r, "Ready")["reason"] == "StatusUnreadable", timeout=PATIENCE)
        assert "status.reassessment.decision: is 'Rebalance'" in told(runtime, "Ready")["message"]
        async with GenerationClient(runtime.front_address("chat")) as client:
            await ask(client)
        await runtime.wait_for(lambda r: told(r, "Available")["status"] == "True", timeout=PATIENCE)
        assert active(runtime) == before
        assert runtime.deployment("chat")["status"]["reassessment"]["decision"] == "Rebalance"
        assert runtime.deployment("chat")["status"]["readyReplicas"] == 1


async def test_a_row_of_another_release_is_left_out_and_named(state: Path, volumes: Path) -> None:
    def archive(obj: dict[str, Any]) -> None:
        obj["status"]["phase"] = "Archived"

    edit(state / "objects" / "heliosprofiles", archive)
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        words = "left out: HeliosProfile "
        await runtime.wait_for(lambda r: words in told(r, "Profiled")["message"], timeout=PATIENCE)
        assert "status.phase: is 'Archived'" in told(runtime, "Profiled")["message"]
        await runtime.wait_for(is_ready, timeout=PATIENCE)  # measured again


async def test_a_failed_pass_is_not_yesterdays_ready(
    state: Path, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = loop.decide
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)

        def faulty(*_: object) -> None:
            raise ZeroDivisionError("of ours")

        monkeypatch.setattr(loop, "decide", faulty)
        await runtime.wait_for(lambda r: told(r, "Ready")["reason"] == "PassFailed", timeout=PATIENCE)
        assert told(runtime, "Ready")["message"] == "ZeroDivisionError: of ours"
        monkeypatch.setattr(loop, "decide", sound)
        await runtime.wait_for(is_ready, timeout=PATIENCE)


async def test_a_secret_that_is_not_here_is_not_done_without(tmp_path: Path, volumes: Path) -> None:
    service = {"port": 8033, "tls": {"secretName": "chat-tls"}}
    async with LocalRuntime([deployment(service=service)], tmp_path / "chat", options(volumes)) as runtime:
        await runtime.wait_for(lambda r: told(r, "Ready")["reason"] == "InvalidSpec", timeout=PATIENCE)
        message = told(runtime, "Ready")["message"]
        assert message.startswith("spec.service.tls.secretName: there is no ")
        assert "chat-tls" in message
        assert "--tls-cert and --tls-key" in message
        assert runtime.hopeless("chat")
        assert runtime.pids("chat") == {}
