"""The whole loop on one machine, end to end: objects in, real processes, real profiles of tiny models, real
streams."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from helios_operator.api import annotations as by_hand
from helios_operator.api.problems import Invalid
from helios_operator.errors import AddressInUseError, OperatorError, StateLockedError
from helios_operator.local.runtime import LocalRuntime, Options
from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import GenerateRequest, SamplingParams

from tests.checkpoints import make_checkpoint

PROMPTS = [
    "The whale swam on through the night.",
    "A ship without a crew is only wood.",
    "Some years ago, never mind how long precisely.",
]
MEMORY_MIB = 1500


def deployment(**spec: Any) -> dict[str, Any]:
    """Two tiny backbones, each with an exit; nothing changes by itself once the first choice is made."""
    return {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": "HeliosDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "modelName": "chat",
            "candidates": [
                {"name": "deep", "uri": "pvc://models/deep", "exitLayers": [2]},
                {"name": "flat", "uri": "pvc://models/flat", "exitLayers": [2]},
            ],
            "slo": {"minQualityPercent": 30},
            "workload": {"isl": 16, "osl": 16, "concurrency": 4},
            "limits": {"memoryMiB": MEMORY_MIB},
            "profiling": {"prompts": {"inline": PROMPTS}},
            "reassessment": {"auditPercent": 1, "everyRequests": 100000},
            "rollout": {
                "scaleDownDelaySeconds": 0,
                "drain": {"preStopSeconds": 0, "timeoutSeconds": 30},
            },
            **spec,
        },
    }


def options(volumes: Path, **changes: Any) -> Options:
    return Options(**({"volumes": volumes, "device": "cpu", "dtype": "float32", "port": 0} | changes))


def active(runtime: LocalRuntime) -> dict[str, Any]:
    found = runtime.deployment("chat").get("status", {}).get("active") or {}
    return dict(found)


def is_ready(runtime: LocalRuntime) -> bool:
    """It serves what was chosen, and nothing is under way."""
    settled = "target" not in runtime.deployment("chat")["status"]
    conditions = [runtime.condition("chat", type) for type in ("Ready", "Progressing")]
    return settled and conditions == ["True", "False"]


def started_jobs(runtime: LocalRuntime) -> list[str]:
    return [r.message for r in runtime.events("chat") if r.source == "job" and r.reason == "Started"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    make_checkpoint(folder / "models" / "deep", layers=4, seed=0)
    make_checkpoint(folder / "models" / "flat", layers=3, seed=1)
    return folder


@pytest.fixture(scope="module")
def profiled(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a first run, from nothing to everything measured and chosen: the loop itself."""
    state = tmp_path_factory.mktemp("state") / "chat"

    async def first_run() -> None:
        async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
            await runtime.wait_for(lambda r: active(r).get("candidate"), timeout=120)
            first = active(runtime)
            async with GenerationClient(runtime.front_address("chat")) as client:
                assert await ask(client)  # served before anything is measured
            assert runtime.condition("chat", "Profiled") == "False"
            await runtime.wait_for(is_ready, timeout=200)
            assert first["layerBudget"] in (3, 4)  # the reference, at full depth
            assert len(runtime.profiles()) == 4

    asyncio.run(first_run())
    return state


@pytest.fixture
def state(profiled: Path, tmp_path: Path) -> Path:
    """A copy of that state, so that each test begins where the first run ended."""
    return Path(shutil.copytree(profiled, tmp_path / "chat"))


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not psutil.wait_procs(left, timeout=5)[1]


async def ask(client: GenerationClient, tokens: int = 40) -> list[dict[str, Any]]:
    """One stream to its end: the spans that produced it. Raises what gRPC raises when the request is lost."""
    parameters = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=1.0)
    request = GenerateRequest(model="chat", text="Call me Ishmael.", sampling_params=parameters)
    answer = client.generate(request, timeout=60)
    complete = await answer.complete()
    assert complete.usage.completion_tokens == tokens
    return await answer.spans()


@asynccontextmanager
async def traffic(runtime: LocalRuntime, callers: int = 4) -> AsyncIterator[list[str]]:
    """Callers in a closed loop; inside the block the list grows by the candidate that ended each stream."""
    answered: list[str] = []
    stop = asyncio.Event()

    async def call() -> None:
        async with GenerationClient(runtime.front_address("chat")) as client:
            while not stop.is_set():
                answered.append((await ask(client))[-1]["candidate"])

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
        while not answered:
            await asyncio.sleep(0.05)
        yield answered
        after = len(answered) + 2 * callers
        while len(answered) < after:
            await asyncio.sleep(0.05)
        stop.set()


def other_than(candidate: str) -> str:
    return {"deep": "flat", "flat": "deep"}[candidate]


def switch_to(runtime: LocalRuntime, candidate: str) -> None:
    runtime.annotate("chat", {by_hand.SWITCH_TO: by_hand.switch_value(candidate, datetime.now(UTC))})


def settled_on(candidate: str) -> Callable[[LocalRuntime], bool]:
    def settled(runtime: LocalRuntime) -> bool:
        status = runtime.deployment("chat")["status"]
        quiet = runtime.condition("chat", "Progressing") == "False" and "target" not in status
        return quiet and status["active"]["candidate"] == candidate and len(runtime.pids("chat")) == 1

    return settled


async def test_a_second_run_measures_nothing_and_serves_what_the_first_chose(
    state: Path, volumes: Path
) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        chosen = active(runtime)
        jobs = started_jobs(runtime)
        await runtime.wait_for(is_ready, timeout=60)
        async with GenerationClient(runtime.front_address("chat")) as client:
            (span,) = await ask(client)
        assert (span["candidate"], span["depth"]) == (chosen["candidate"], chosen["layerBudget"])
        assert started_jobs(runtime) == jobs
        assert runtime.deployment("chat")["metadata"]["generation"] == 1
        endpoint = runtime.deployment("chat")["status"]["endpoint"]
        assert endpoint == runtime.front_address("chat")


async def test_a_switch_by_surge_loses_no_stream(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=60)
        before = active(runtime)["candidate"]
        after = other_than(before)
        old_pod = set(runtime.pids("chat").values())
        async with traffic(runtime) as answered:
            switch_to(runtime, after)
            await runtime.wait_for(settled_on(after), timeout=120)
        assert answered[0] == before
        assert answered[-1] == after
        assert not old_pod & set(runtime.pids("chat").values())
        entry = runtime.deployment("chat")["status"]["history"][-1]
        assert (entry["kind"], entry["to"]["candidate"], entry["result"]) == ("Switch", after, "Promoted")
        assert runtime.deployment("chat")["status"]["rollout"]["strategy"] == "Surge"


async def test_a_switch_in_place_when_memory_holds_one_pod(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes, memory_mib=MEMORY_MIB)) as runtime:
        await runtime.wait_for(is_ready, timeout=60)
        before = active(runtime)["candidate"]
        after = other_than(before)
        pod = runtime.pids("chat")
        async with traffic(runtime) as answered:
            switch_to(runtime, after)
            await runtime.wait_for(settled_on(after), timeout=120)
        assert {answered[0], answered[-1]} == {before, after}
        assert runtime.pids("chat") == pod  # the same process, another model
        assert runtime.deployment("chat")["status"]["rollout"]["strategy"] == "InPlace"


async def test_a_killed_pod_is_started_again_with_what_was_chosen(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=60)
        chosen = active(runtime)
        ((name, pid),) = runtime.pids("chat").items()
        os.kill(pid, signal.SIGKILL)
        await runtime.wait_for(lambda r: r.pids("chat").get(name) not in (None, pid), timeout=60)
        await runtime.wait_for(is_ready, timeout=60)
        async with GenerationClient(runtime.front_address("chat")) as client:
            (span,) = await ask(client)
        assert span["depth"] == chosen["layerBudget"]
        reasons = [record.reason for record in runtime.events("chat") if record.source == "pod"]
        assert "BackOff" in reasons


async def test_a_change_of_the_spec_by_hand_is_admitted_first(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=60)
        with pytest.raises(Invalid, match=r"spec\.slo\.percentile"):
            runtime.patch("chat", ("slo", "percentile"), 200)
        runtime.patch("chat", ("rollout", "paused"), True)
        switch_to(runtime, other_than(active(runtime)["candidate"]))
        generation = runtime.deployment("chat")["metadata"]["generation"]
        assert generation == 2
        await runtime.wait_for(
            lambda r: r.deployment("chat")["status"]["observedGeneration"] == generation, timeout=30
        )
        assert len(runtime.pids("chat")) == 1


async def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path, volumes: Path) -> None:
    def runtime(obj: dict[str, Any], **changes: Any) -> LocalRuntime:
        return LocalRuntime([obj], tmp_path / "state", options(volumes, **changes))

    with pytest.raises(Invalid, match=r"selection\.candidate"):
        async with runtime(deployment(selection={"policy": "Pinned", "candidate": "nobody"})):
            pytest.fail("an unknown candidate was served")
    with pytest.raises(OperatorError, match="holds no HeliosDeployment"):
        async with LocalRuntime([], tmp_path / "state", options(volumes)):
            pytest.fail("nothing was served")
    async with runtime(deployment(replicas=0)) as running:
        port = int(running.front_address("chat").split(":")[1])
        with pytest.raises(StateLockedError, match=str(os.getpid())):
            async with runtime(deployment()):
                pytest.fail("two runtimes share a folder")
        with pytest.raises(AddressInUseError, match=str(port)):
            async with LocalRuntime([deployment()], tmp_path / "other", options(volumes, port=port)):
                pytest.fail("two runtimes share a port")
    assert not (tmp_path / "state" / "admin.json").exists()
