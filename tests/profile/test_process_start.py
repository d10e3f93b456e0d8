"""Rows foretold from a profile's memory are those that a pod serves, before any pod was there to ask."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from helios_contract.results import MemoryFacts
from helios_server.planning.memory import MIB, capacity

from tests.checkpoints import make_checkpoint
from tests.rpc.pods import child, eventually, speaking

TOKENS, LIMIT_MIB = 512, 300


async def of_a_profile(model: Path) -> MemoryFacts:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.profile.measured_start", str(model)), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    return MemoryFacts(**json.loads(told))


async def rows_of_a_pod(model: Path, folder: Path) -> int:
    arguments = ("--model", f"file://{model}", "--memory-mib", LIMIT_MIB, "--tokens-per-request", TOKENS)
    async with child(folder, *map(str, arguments)) as process, speaking(await process.ports()) as pod:

        async def ready() -> bool:
            return (await pod.telemetry()).ready

        await eventually(ready)
        return (await pod.telemetry()).capacity.max_batch_size


async def test_as_many_rows_are_foretold_as_a_pod_serves(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=6)
    facts, served = await asyncio.gather(of_a_profile(model), rows_of_a_pod(model, tmp_path))
    foretold = capacity(
        facts,
        limit_bytes=LIMIT_MIB * MIB,
        layers=6,
        tokens_per_request=TOKENS,
        max_rows=facts.step_tokens,
    ).rows
    assert 20 < served < facts.step_tokens  # memory bounds them
    assert foretold == pytest.approx(served, rel=0.02)
