"""A pod that serves is asked the user's tasks: nothing counts them, nobody waits for them, and a fall is
told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helios_contract import tasks
from helios_contract.limits import Audit, Limits, TaskProbe
from helios_contract.tasks import Expectation, Task
from helios_contract.telemetry import Telemetry
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import GenerationRequest
from helios_server.engine.sampling import SamplingParams
from helios_server.rpc import prober
from helios_server.rpc.pages import pages
from helios_server.rpc.server import PodServer, Ports

from tests.checkpoints import make_checkpoint

ANY = [Task(f"t{index}", Expectation(regex="^"), f"text {index}", max_tokens=3) for index in range(5)]
NEVER = [replace(task, expect=Expectation(contains="never said by it")) for task in ANY]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "model", layers=2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "_REST_SECONDS", 0.01)


def probe(listed: list[Task], passes: list[bool] | None = None) -> TaskProbe:
    return TaskProbe(tasks.digest(listed), 0.01, 2, tasks.bits(passes or [True] * len(listed)))


@asynccontextmanager
async def pod(
    model: Path, file: Path, asked: TaskProbe | None, rows: int = 2, context: int | None = None
) -> AsyncIterator[PodServer]:
    limits = Limits(
        generation=1, candidate="one", model_uri=f"file://{model}", max_batch_size=rows, live_prompts=4,
        audit=Audit(percent=100), task_probe=asked, tokens_per_request=64, memory_mib=4096,
    )  # fmt: skip
    server = PodServer("chat", EngineConfig(dtype="float32", max_context=context), limits, tasks_file=file)
    await server.open("127.0.0.1", Ports(0, 0, 0, None))
    try:
        await server.load()
        yield server
    finally:
        await server.close()


async def until(server: PodServer, holds: Callable[[Telemetry], bool]) -> Telemetry:
    async with asyncio.timeout(60):
        while not holds(told := server.pod.loaded_engine().telemetry()):
            await asyncio.sleep(0.01)
    return told


def asked_of(told: Telemetry) -> int:
    return told.tasks.asked if told.tasks else 0


async def page(server: PodServer) -> str:
    return (await pages(server.pod)["/metrics"]()).body.decode()


async def shown(server: PodServer, what: str) -> float:
    """What Prometheus is told of the probe."""
    start = f'helios_task_probe_{what}_total{{candidate="one",layer_budget="2",model_name="chat"}} '
    (line,) = (line for line in (await page(server)).splitlines() if line.startswith(start))
    return float(line.removeprefix(start))


async def test_tasks_are_asked_in_turn_and_counted_nowhere_else(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(ANY))
    async with pod(model, file, probe(ANY)) as server:
        told = await until(server, lambda told: asked_of(told) >= 12)
        assert told.tasks is not None
        assert told.tasks.passed == told.tasks.asked
        assert await shown(server, "asked") == await shown(server, "passed") >= 12
        assert not told.alarms
        counts = (told.requests_finished, told.prompt_tokens, told.generation_tokens, told.requests_failed)
        assert counts == (0, 0, 0, 0)
        assert not any((*told.ttft_ms.counts, *told.itl_ms.counts, *told.e2e_ms.counts))
        assert not told.audits
        assert not told.steps
        assert told.prompts is None
        assert not any(told.confidence_percent.counts)


async def test_a_fall_is_told_as_an_alarm_of_its_own(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(NEVER))
    async with pod(model, file, probe(NEVER)) as server:
        told = await until(server, lambda told: bool(told.alarms))
        assert (told.alarms[0].kind, told.alarms[0].direction) == ("Tasks", "Down")
        assert told.tasks is not None
        assert told.tasks.passed == 0
        assert (await shown(server, "passed"), await shown(server, "asked") >= 3) == (0, True)


async def test_an_alarm_counts_although_what_raised_it_is_gone_before_anybody_looked(
    model: Path, tmp_path: Path
) -> None:
    """An operator repairs within seconds; Prometheus looks twice a minute."""
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(NEVER))
    async with pod(model, file, probe(NEVER)) as server:
        engine = server.pod.loaded_engine()
        await until(server, lambda told: bool(told.alarms))
        limits = replace(
            engine.telemetry().limits, generation=2, layer_budget=1, exit_layers=(1,), task_probe=None
        )
        await asyncio.wrap_future(engine.set_limits(limits))
        assert engine.telemetry().alarms == ()
        line = 'helios_alarms_total{direction="Down",kind="Tasks",model_name="chat"} '
        (found,) = (each for each in (await page(server)).splitlines() if each.startswith(line))
        assert float(found.removeprefix(line)) >= 1
        assert (await page(server)).count(found) == 1  # and once, however often it is asked


async def test_only_what_should_pass_is_asked(model: Path, tmp_path: Path) -> None:
    listed = [ANY[0], NEVER[1], ANY[2], NEVER[3]]
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(listed))
    async with pod(model, file, probe(listed, [True, False, True, False])) as server:
        told = await until(server, lambda told: asked_of(told) >= 8)
        assert told.tasks is not None
        assert told.tasks.passed == told.tasks.asked


async def test_nobody_waits_for_a_task(model: Path, tmp_path: Path) -> None:
    """One row, and a request that holds it: no task is asked until it ends."""
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(ANY))
    async with pod(model, file, probe(ANY), rows=1) as server:
        engine, ended = server.pod.loaded_engine(), asyncio.Event()
        await until(server, lambda told: asked_of(told) >= 1)
        loop = asyncio.get_running_loop()
        request = GenerationRequest("real", (5, 6, 7), SamplingParams(max_tokens=300, ignore_eos=True))
        engine.submit(request, lambda event: loop.call_soon_threadsafe(_note, event, ended))
        seen = set()
        while not ended.is_set():
            told = engine.telemetry()
            if told.generation_tokens > 20 and told.requests_finished == 0:
                seen.add(asked_of(told))
            await asyncio.sleep(0.001)
        (before,) = seen
        told = await until(server, lambda told: asked_of(told) > before)
        assert told.requests_finished == 1
        assert told.generation_tokens == 300


def _note(event: object, ended: asyncio.Event) -> None:
    if type(event).__name__ == "FinishedEvent":
        ended.set()


async def test_other_tasks_than_the_limits_name_are_not_asked(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(NEVER))
    async with pod(model, file, probe(ANY)) as server:
        await asyncio.sleep(0.2)
        assert server.pod.loaded_engine().telemetry().tasks is None
        assert "is to be asked" in caplog.text
        file.write_text(tasks.document(ANY))  # as a ConfigMap that was edited arrives
        await until(server, lambda told: asked_of(told) > 0)


async def test_a_task_that_may_not_be_asked_here_holds_up_no_other(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer would be longer than the context: it is passed over, no failure, and said."""
    listed = [replace(ANY[0], max_tokens=200), *ANY[1:]]
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(listed))
    async with pod(model, file, probe(listed), context=100) as server:
        told = await until(server, lambda told: asked_of(told) >= 8)
        assert told.tasks is not None
        assert told.tasks.passed == told.tasks.asked
    assert "task t0 is passed over: sampling_params.max_tokens" in caplog.text
