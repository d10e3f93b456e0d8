"""SmolLM2 with the built-in heads: an exit that keeps the quality of prose loses tasks, and a pod tells so.

The change is a shallow exit of a head bundle, as it would be chosen by bits per byte alone: 24 of 30 layers
keep more than 91 % of the quality of prose (`tests/profile/test_real_model.py`), and minQualityPercent 90
takes them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from helios_contract import task_file, tasks
from helios_contract.limits import Limits, TaskProbe
from helios_contract.serves import Precision
from helios_operator.decide.facts.binomial import lower
from helios_operator.decide.policy import Policy
from helios_server.engine.limits import EngineConfig
from helios_server.models.store import ensure_smollm2
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_candidate
from helios_server.profile.task_options import TaskOption
from helios_server.profile.tasks import TaskSettings, measure_tasks
from helios_server.progress import Progress
from helios_server.rpc import prober
from helios_server.rpc.server import PodServer, Ports

FILE = Path(__file__).parents[2] / "examples" / "tasks-smollm2.json"
TASKS = 80
"""minTaskPercent."""


@pytest.fixture(scope="module")
def passes() -> dict[int, tuple[bool, ...]]:
    """By depth."""
    torch.set_num_threads(1)
    opened = [open_candidate(Candidate("one", f"file://{ensure_smollm2()}", None, "builtin://general"), None)]
    options = [TaskOption("one", layers, Precision()) for layers in (30, 24)]
    found = measure_tasks(opened, options, task_file.read(FILE.read_text()), TaskSettings(), Progress())
    return {row.layer_budget: tasks.passes(row.passes, found.result.tasks) for row in found.result.rows}


def test_the_exit_is_refused_by_the_tasks(passes: dict[int, tuple[bool, ...]]) -> None:
    trials = sum(passes[30])
    assert trials >= 30 >= Policy().min_tasks  # most of what it is asked it can do
    both = sum(a and b for a, b in zip(passes[30], passes[24], strict=True))
    assert 100 * both / trials < TASKS
    assert 100 * lower(both, trials, Policy().task_confidence) < TASKS


async def test_a_pod_that_serves_it_unnoticed_tells_so(
    passes: dict[int, tuple[bool, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that it passes what full depth does, as one whose model became shallower would be."""
    monkeypatch.setattr(prober, "_REST_SECONDS", 0.01)
    digest = tasks.digest(task_file.read(FILE.read_text()))
    limits = Limits(
        generation=1, candidate="one", model_uri=f"file://{ensure_smollm2()}", exits_uri="builtin://general",
        layer_budget=24, max_batch_size=2, exit_layers=(24, 27),
        task_probe=TaskProbe(digest, 0.01, 8, tasks.bits(passes[30])),
    )  # fmt: skip
    server = PodServer("chat", EngineConfig(), limits, tasks_file=FILE)
    await server.open("127.0.0.1", Ports(0, 0, 0, None))
    try:
        await server.load()
        async with asyncio.timeout(240):
            while not (told := server.pod.loaded_engine().telemetry()).alarms:
                await asyncio.sleep(0.05)
    finally:
        await server.close()
    assert [alarm.kind for alarm in told.alarms] == ["Tasks"]
    assert told.requests_finished == 0
    assert told.tasks is not None
    assert told.tasks.passed < told.tasks.asked
