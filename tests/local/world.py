"""A first run of the whole loop on tiny models, made once for all tests that begin where it ended, and what
they share.

Imported by the conftest of every folder that needs it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from helios_operator.api import annotations as by_hand
from helios_operator.local import jobs
from helios_operator.local.runtime import LocalRuntime, Options
from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import GenerateRequest, SamplingParams
from helios_server.engine import sampling
from helios_server.engine.offline import Shelf, first_difference
from helios_server.models.store import resolve
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.messages import read_spans

from tests.checkpoints import make_checkpoint
from tests.local import brief

PROMPTS = [
    "The whale swam on through the night.",
    "A ship without a crew is only wood.",
    "Some years ago, never mind how long precisely.",
]
MEMORY_MIB = 1500
PATIENCE = 240
"""Seconds until a wait is given up: long, for machines that have much else to do."""


AS_PUBLISHED = {"weightDtypes": ["auto"], "kvCacheDtypes": ["auto"]}
"""Of a candidate: one precision is measured, and not four."""


def deployment(**spec: Any) -> dict[str, Any]:
    """Two tiny backbones, each with an exit; nothing changes by itself once the first choice is made."""
    return {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": "HeliosDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "modelName": "chat",
            "candidates": [
                {"name": "deep", "uri": "pvc://models/deep", "exitLayers": [2], **AS_PUBLISHED},
                {"name": "flat", "uri": "pvc://models/flat", "exitLayers": [2], **AS_PUBLISHED},
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
    return Options(
        **({"volumes": volumes, "device": "cpu", "dtype": "float32", "port": 0, "http_port": 0} | changes)
    )


# -- the first run ------------------------------------------------------------------------------------------


def _first_run(root: Path) -> tuple[Path, Path]:
    """Volumes and state, made by whoever asks first; nobody writes to either afterwards."""
    root.mkdir(exist_ok=True)
    volumes, state = root / "volumes", root / "chat"
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            for left in (volumes, state):  # of a run that failed: the next test says the same of its own
                shutil.rmtree(left, ignore_errors=True)
            _loop(volumes, state)
            (root / "done").touch()
    return volumes, state


def _loop(volumes: Path, state: Path) -> None:
    """From nothing to everything measured and chosen: the loop itself."""
    make_checkpoint(volumes / "models" / "deep", layers=4, seed=0)
    make_checkpoint(volumes / "models" / "flat", layers=3, seed=1)

    async def run() -> None:
        async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
            await runtime.wait_for(lambda r: active(r).get("candidate"), timeout=PATIENCE)
            first = active(runtime)
            async with GenerationClient(runtime.front_address("chat")) as client:
                assert await ask(client)  # served before anything is measured
            assert runtime.condition("chat", "Profiled") == "False"
            await runtime.wait_for(is_ready, timeout=PATIENCE)
            assert first["layerBudget"] in (3, 4)  # the reference, at full depth
            assert len(runtime.profiles()) == 4

    with brief_jobs():
        asyncio.run(run())


@contextmanager
def brief_jobs() -> Iterator[None]:
    """Inside it a Timing takes the fewest rounds that it may have."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "helios_command", brief.command)
        yield


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Volumes and state, one for all workers of a session."""
    own = tmp_path_factory.getbasetemp()
    return _first_run((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "first-run")


@pytest.fixture(scope="session")
def volumes(first_run: tuple[Path, Path]) -> Path:
    return first_run[0]


@pytest.fixture
def state(first_run: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first run's state, so that each test begins where that run ended."""
    return Path(shutil.copytree(first_run[1], tmp_path / "chat"))


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not psutil.wait_procs(left, timeout=60)[1]


# -- looking at a runtime -----------------------------------------------------------------------------------


def active(runtime: LocalRuntime) -> dict[str, Any]:
    return dict(runtime.deployment("chat").get("status", {}).get("active") or {})


def is_ready(runtime: LocalRuntime) -> bool:
    """It serves what was chosen, and nothing is under way."""
    settled = "target" not in runtime.deployment("chat")["status"]
    conditions = [runtime.condition("chat", type) for type in ("Ready", "Progressing")]
    return settled and conditions == ["True", "False"]


def settled_on(candidate: str) -> Callable[[LocalRuntime], bool]:
    def settled(runtime: LocalRuntime) -> bool:
        status = runtime.deployment("chat")["status"]
        quiet = runtime.condition("chat", "Progressing") == "False" and "target" not in status
        return quiet and status["active"]["candidate"] == candidate and len(runtime.pids("chat")) == 1

    return settled


def started_jobs(runtime: LocalRuntime) -> list[str]:
    return [r.message for r in runtime.events("chat") if r.source == "job" and r.reason == "Started"]


def other_than(candidate: str) -> str:
    return {"deep": "flat", "flat": "deep"}[candidate]


def switch_to(runtime: LocalRuntime, candidate: str) -> None:
    runtime.annotate("chat", {by_hand.SWITCH_TO: by_hand.switch_value(candidate, datetime.now(UTC))})


# -- callers ------------------------------------------------------------------------------------------------

TEXT, SEED = "Call me Ishmael.", 7


@dataclass(frozen=True)
class Stream:
    """One that came to its end. Times are of the event loop, in seconds."""

    began: float
    ended: float
    output_ids: tuple[int, ...]
    spans: list[dict[str, Any]]

    @property
    def candidate(self) -> str:
        """That produced its last token."""
        return str(self.spans[-1]["candidate"])


async def ask(client: GenerationClient, tokens: int = 40) -> Stream:
    """Raises what gRPC raises when the request is lost."""
    began = asyncio.get_running_loop().time()
    parameters = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=1.0, seed=SEED)
    request = GenerateRequest(model="chat", text=TEXT, sampling_params=parameters)
    answer = client.generate(request, timeout=PATIENCE)
    complete = await answer.complete()
    assert complete.usage.completion_tokens == tokens
    ended = asyncio.get_running_loop().time()
    return Stream(began, ended, tuple(complete.output_ids), await answer.spans())


@asynccontextmanager
async def traffic(address: str, callers: int = 4, tokens: int = 40) -> AsyncIterator[list[Stream]]:
    """Callers in a closed loop; inside the block the list grows by each stream that ended."""
    answered: list[Stream] = []
    stop = asyncio.Event()

    async def call() -> None:
        async with GenerationClient(address) as client:
            while not stop.is_set():
                answered.append(await ask(client, tokens))

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


def under_way_at_the_change(streams: Sequence[Stream], before: str, after: str) -> list[Stream]:
    """Those of the old model that began before its successor's first one, and ended after that one began."""
    first = min(stream.began for stream in streams if stream.candidate == after)
    return [stream for stream in streams if stream.candidate == before and stream.ended > first]


def follow_offline(streams: Sequence[Stream], volumes: Path) -> None:
    """Each stream is what a run alone comes to, with the model, heads and depth that its end names."""
    shelf = Shelf({}, "float32", volumes=volumes)
    tokenizer = Tokenizer.open(resolve("pvc://models/deep", volumes=volumes).path)
    prompt = tuple(tokenizer.encode(TEXT, add_special=True))
    for told in {(stream.output_ids, json.dumps(stream.spans)) for stream in streams}:
        output, spans = told[0], read_spans(json.loads(told[1]))
        asked = sampling.SamplingParams(max_tokens=len(output), ignore_eos=True, temperature=1.0, seed=SEED)
        assert first_difference(shelf, "any", prompt, asked, spans, output) is None, spans
