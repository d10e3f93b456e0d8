"""The doors answer whatever the engine is at, and say so when it hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import generation_pb2
from helios_server.engine import changes
from helios_server.engine.pulse import Activity, Work
from helios_server.rpc import health as health_module
from helios_server.rpc.health import LONGEST_SECONDS, hung

from tests.checkpoints import make_checkpoint
from tests.rpc.pods import LAYERS, Served, eventually, generate_request, serving
from tests.rpc.test_control import health

LONG_TASK_SECONDS = 2.0


async def test_the_loop_answers_while_a_task_holds_the_engine(pod: Served) -> None:
    """Everything but a new request, which has to wait, and an end, which comes with the next step."""
    assert pod.server is not None
    engine = pod.server.pod.loaded_engine()
    finished = pod.client.generate(generate_request(max_tokens=5))
    messages = aiter(finished)
    await anext(messages)
    await eventually(lambda: _true(engine.telemetry().requests_finished == 1))
    holding = threading.Event()
    task = engine.at_boundary(lambda: (holding.set(), time.sleep(LONG_TASK_SECONDS)))
    assert await asyncio.to_thread(holding.wait, 60)
    late = asyncio.create_task(pod.generate(max_tokens=3))  # its submission waits for the engine's lock
    aborted = asyncio.create_task(_abort(pod))
    await asyncio.sleep(0.05)  # both are where they have to wait
    *_, last = [message async for message in messages]
    assert len(last.complete.output_ids) == 5
    assert (await pod.page("/healthz"))[0] == 200
    assert (await pod.page("/readyz")) == (200, "serving\n")
    assert "helios_layers_loaded" in (await pod.page("/metrics"))[1]
    assert (await pod.telemetry()).requests_finished == 1
    assert (await pod.load()).running == 0
    assert (await pod.info()).total_layers == LAYERS
    assert (await pod.control.GetLimits(pb.GetLimitsRequest())).limits.generation == 1
    assert await health(pod.ports.port, "helios.v1.Generation") == "SERVING"
    assert not task.done()
    assert not late.done()
    assert not aborted.done()
    assert len((await late).output_ids) == 3
    await aborted


async def _abort(pod: Served) -> None:
    await pod.client.stub.Abort(generation_pb2.AbortRequest(request_id="nobody"))


async def _true(holds: bool) -> bool:
    return holds


async def test_events_arrive_in_order_while_the_next_task_runs(pod: Served) -> None:
    """A task between every two steps: whatever the loop does with an event, it waits for none of them."""
    assert pod.server is not None
    engine = pod.server.pod.loaded_engine()
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        time.sleep(0.01)
        if not over.is_set():
            engine.at_boundary(hold)

    engine.at_boundary(hold)
    answers = [pod.client.generate(generate_request(max_tokens=20)) for _ in range(3)]
    for answer in answers:
        ids = [token async for message in answer for token in message.chunk.token_ids]
        assert len(ids) == 20
    over.set()
    assert holding.is_set()


# -- an engine that hangs ------------------------------------------------------------------------------------


@pytest.fixture
async def stuck(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Served, threading.Event]]:
    """A pod one of whose steps does not come back before the event is set."""
    assert pod.server is not None
    runner, let = pod.server.pod.loaded_engine().serving.weights, threading.Event()
    real = runner.run

    def hangs(*arguments: Any) -> Any:
        let.wait(240)
        return real(*arguments)

    monkeypatch.setattr(runner, "run", hangs)
    monkeypatch.setitem(health_module.LONGEST_SECONDS, Work.STEP, 0.5)
    yield pod, let
    let.set()


async def test_a_step_that_hangs_ends_liveness_and_readiness(
    stuck: tuple[Served, threading.Event], caplog: pytest.LogCaptureFixture
) -> None:
    pod, let = stuck
    assert pod.server is not None
    watching = asyncio.create_task(pod.server.watch())
    request = asyncio.create_task(pod.generate(max_tokens=3))

    async def shown(path: str, status: int) -> bool:
        return (await pod.page(path))[0] == status

    await eventually(lambda: shown("/healthz", 503))
    text = (await pod.page("/healthz"))[1]
    assert text.startswith("the engine hangs: a step has shown no sign of life for ")
    assert (await pod.page("/readyz"))[0] == 503

    async def told(service: str, status: str) -> bool:
        return await health(pod.ports.control_port, service) == status

    await eventually(lambda: told("", "NOT_SERVING"))
    await eventually(lambda: told("helios.v1.Generation", "NOT_SERVING"))
    assert not (await pod.telemetry()).ready
    assert pod.server.pod.loaded_engine().seconds_since_step > 0.5
    assert "the engine hangs" in caplog.text
    let.set()  # it was slow, not dead: a pod that nobody restarted serves again
    await request
    await eventually(lambda: shown("/healthz", 200))
    await eventually(lambda: told("helios.v1.Generation", "SERVING"))
    watching.cancel()


async def test_an_idle_pod_lives(pod: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(health_module.LONGEST_SECONDS, Work.STEP, 0.0)
    assert pod.server is not None
    engine = pod.server.pod.loaded_engine()
    await eventually(lambda: _true(not engine.activities()))
    await asyncio.sleep(0.1)
    assert (await pod.page("/healthz"))[0] == 200


async def test_a_pod_that_loads_another_model_lives(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a step may take, with requests that wait meanwhile."""
    let, real = threading.Event(), changes.load_model

    def slowly(*arguments: Any) -> Any:
        assert let.wait(240)
        return real(*arguments)

    monkeypatch.setattr(changes, "load_model", slowly)
    other = make_checkpoint(tmp_path / "other", layers=3, seed=9, max_position_embeddings=4096)
    async with serving(tiny) as pod:
        assert pod.server is not None
        engine = pod.server.pod.loaded_engine()
        change = asyncio.create_task(
            pod.set_limits(model_uri=f"file://{other}", model_revision="", exit_layers=[])
        )
        await eventually(lambda: _true(engine.serving.runner is None))
        request = asyncio.create_task(pod.generate(max_tokens=3))
        await eventually(lambda: _true(engine.waiting == 1))
        monkeypatch.setitem(health_module.LONGEST_SECONDS, Work.STEP, 0.0)
        assert (await pod.page("/healthz"))[0] == 200
        monkeypatch.setitem(health_module.LONGEST_SECONDS, Work.CHANGE, 0.0)
        assert "a change of limits has shown no sign of life" in (await pod.page("/healthz"))[1]
        monkeypatch.undo()
        let.set()
        await change
        assert len((await request).output_ids) == 3


@pytest.mark.parametrize("work", list(Work))
def test_each_kind_of_work_has_a_bound_of_its_own(work: Work) -> None:
    longest = LONGEST_SECONDS[work]
    assert hung([Activity(work, longest)]) == ""
    assert f"{work} has shown no sign of life" in hung([Activity(work, longest + 1)])
    assert hung([]) == ""
    assert LONGEST_SECONDS[Work.STEP] <= LONGEST_SECONDS[Work.TASK] <= LONGEST_SECONDS[Work.CHANGE]
