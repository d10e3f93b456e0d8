"""Pods are real `helios serve` processes on tiny models, and clients are real gRPC streams through the
front address."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helios_contract import limits as document
from helios_contract.limits import Limits
from helios_operator.decide.snapshot import Pod, PodPhase, Revision
from helios_operator.local import pods
from helios_operator.local.front import Front
from helios_operator.local.pods import PodSettings
from helios_operator.local.revisions import Revisions
from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import GenerateRequest, GetModelInfoRequest, SamplingParams

from tests.checkpoints import make_checkpoint

LIMITS = Limits(
    generation=1,
    candidate="old",
    model_uri="pvc://models/old",
    model_revision="",
    exits_uri="",
    exits_digest="",
    layer_budget=4,
    max_batch_size=8,
    memory_mib=2000,
    max_queue_size=64,
    exit_layers=(2,),
    tokens_per_request=128,
)
NEW = replace(LIMITS, candidate="new", model_uri="pvc://models/new")
LONG_DRAIN = 240
"""Seconds in which every stream of a busy machine ends."""
Said = list[tuple[str, str, str, str]]


@dataclass
class Place:
    """Revisions behind a front address, and what was said about them."""

    revisions: Revisions
    front: Front
    said: Said = field(default_factory=list)

    async def see(self) -> tuple[Revision, ...]:
        """And settles, as a pass does that has nothing to write."""
        seen = await self.revisions.see()
        self.revisions.settle(seen)
        return seen

    async def pod(self, revision: int = 0) -> Pod:
        return (await self.see())[revision].pods[0]

    async def until(self, holds: Callable[[tuple[Revision, ...]], bool]) -> None:
        self.revisions.settle()
        async with asyncio.timeout(240):
            while not holds(await self.see()):
                await asyncio.sleep(0.1)

    async def ready(self, count: int = 1) -> None:
        await self.until(lambda seen: sum(pod.ready for r in seen for pod in r.pods) >= count)


@asynccontextmanager
async def place(folder: Path, max_context: int | None = None) -> AsyncIterator[Place]:
    for seed, name in enumerate(("old", "new")):
        make_checkpoint(folder / "models" / name, seed=seed, max_position_embeddings=4096)
    (folder / "token").write_text("secret\n")
    settings = PodSettings(
        "chat",
        folder / "token",
        "secret",
        folder,
        "cpu",
        "float32",
        drain_seconds=LONG_DRAIN,
        max_context=max_context,
    )
    said: Said = []
    revisions = Revisions(
        folder / "revisions", "chat", settings, lambda *words: said.append(words), lambda: None
    )
    front = Front(revisions.backends)
    await front.open("127.0.0.1", 0)
    try:
        yield Place(revisions, front, said)
    finally:
        await revisions.stop(2)
        await front.close()


def request(tokens: int = 40) -> GenerateRequest:
    parameters = SamplingParams(max_tokens=tokens, temperature=1.0, ignore_eos=True)
    return GenerateRequest(model="chat", text="Call me Ishmael.", sampling_params=parameters)


async def served_by(client: GenerationClient, tokens: int = 40) -> str:
    """The candidate that answered; raises what gRPC raises when the request is lost."""
    answer = client.generate(request(tokens), timeout=240)
    complete = await answer.complete()
    assert complete.usage.completion_tokens == tokens
    (span,) = await answer.spans()
    return str(span["candidate"])


async def test_a_bound_of_the_context_is_that_of_the_process(tmp_path: Path) -> None:
    async with place(tmp_path, max_context=96) as here:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        here.revisions.route(1)
        await here.ready()
        async with GenerationClient(here.front.address) as client:
            info = await client.stub.GetModelInfo(GetModelInfoRequest())
            assert info.max_context_tokens == 96


def _streams(seen: tuple[Revision, ...]) -> bool:
    """The first pod has requests that run. One look may miss them: callers pause, a busy pod may be late."""
    (pod,) = seen[0].pods
    return pod.telemetry is not None and pod.telemetry.running > 0


async def test_a_switch_by_surge_loses_no_stream(tmp_path: Path) -> None:
    """Eight callers in a closed loop, some on connections of their own, while the model behind the address
    changes."""
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        here.revisions.create(2, NEW, 1, datetime.now(UTC))
        here.revisions.route(1)
        await here.ready(2)
        answers: list[str] = []
        stop = asyncio.Event()

        async def call() -> None:
            async with GenerationClient(here.front.address) as client:
                while not stop.is_set():
                    answers.append(await served_by(client))

        async with asyncio.TaskGroup() as callers:
            for _ in range(8):
                callers.create_task(call())
            await here.until(_streams)  # some began before the change
            here.revisions.route(2)
            here.revisions.drain(1, LONG_DRAIN)
            await here.until(lambda seen: not seen[0].pods)
            here.revisions.delete(1)
            later = len(answers) + 16
            while len(answers) < later:
                await asyncio.sleep(0.1)
            stop.set()
        assert {answers[0], answers[-1]} == {"old", "new"}
        assert set(answers[later - 8 :]) == {"new"}
        assert [words for words in here.said if words[2] == "BackOff"] == []
        assert not (tmp_path / "revisions" / "1").exists()


async def test_a_pod_that_was_silent_for_a_while_may_drain_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ready is not idle: its streams stand, and are given the time of a drain."""
    monkeypatch.setattr(pods, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr(pods, "_KILL_SECONDS", 0.0)
    async with place(tmp_path) as here, GenerationClient(here.front.address) as client:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        here.revisions.route(1)
        await here.ready()
        call = asyncio.create_task(served_by(client, 2000))
        await here.until(_streams)
        (pod,) = here.revisions.pods()
        assert pod.pid is not None
        os.kill(pod.pid, signal.SIGSTOP)
        await here.until(lambda seen: not seen[0].pods[0].ready)
        here.revisions.drain(1, LONG_DRAIN)
        here.revisions.settle()
        os.kill(pod.pid, signal.SIGCONT)
        assert await call == "old"


async def test_a_killed_pod_comes_back_as_it_was_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here, GenerationClient(here.front.address) as client:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        here.revisions.route(1)
        here.revisions.settle()
        assert await served_by(client) == "old"
        changed = replace(LIMITS, generation=2, layer_budget=2)
        here.revisions.write_limits(1, changed)
        await here.until(lambda seen: seen[0].pods[0].telemetry.limits.generation == 2)  # type: ignore[union-attr]
        before = await here.pod()
        (pod,) = here.revisions.pods()
        assert pod.pid is not None
        os.kill(pod.pid, signal.SIGKILL)
        await here.until(lambda seen: seen[0].pods[0].restarts == 1 and seen[0].pods[0].ready)
        assert await served_by(client) == "old"
        after = await here.pod()
        assert before.telemetry is not None
        assert after.telemetry is not None
        assert after.telemetry.boot_id != before.telemetry.boot_id
        assert after.telemetry.limits.layer_budget == 2


async def test_a_pod_that_cannot_start_says_why(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.revisions.create(1, replace(LIMITS, model_uri="pvc://models/nowhere"), 1, datetime.now(UTC))
        await here.until(lambda seen: seen[0].pods[0].phase is PodPhase.FAILED)
        pod = await here.pod()
        assert not pod.ready
        assert pod.message.startswith("CrashLoopBackOff: pvc://models/nowhere: ")
        assert pod.message.endswith("(exited with 2)")
        here.revisions.drain(1, 30)
        await here.until(lambda seen: not seen[0].pods)


async def test_refused_limits_are_asked_for_once(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        await here.ready()
        here.revisions.write_limits(1, replace(LIMITS, generation=2, model_uri="pvc://models/nowhere"))
        await here.until(lambda seen: seen[0].pods[0].telemetry.known_generation == 2)  # type: ignore[union-attr]
        for _ in range(5):
            pod = await here.pod()
            await asyncio.sleep(0.05)
        assert pod.telemetry is not None
        assert pod.telemetry.limits.generation == 1
        assert "nowhere" in pod.telemetry.refused.message
        assert [words[2] for words in here.said].count("LimitsRefused") == 1
        here.revisions.write_limits(1, replace(LIMITS, generation=3, layer_budget=2))
        await here.until(lambda seen: seen[0].pods[0].telemetry.limits.generation == 3)  # type: ignore[union-attr]


async def test_memory_is_claimed_until_a_pod_has_gone(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 2, datetime.now(UTC))
        assert here.revisions.claimed_mib == 4000  # though none of them was started yet
        await here.ready(2)
        here.revisions.scale(1, 1)
        assert here.revisions.claimed_mib == 4000  # it drains
        await here.until(lambda seen: len(seen[0].pods) == 1)
        assert here.revisions.claimed_mib == 2000


async def test_seeing_starts_nothing_and_settling_starts_what_is_missing(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        (seen,) = await here.revisions.see()
        assert (seen.pods, here.revisions.pods()) == ((), [])
        here.revisions.settle((seen,))
        assert [pod.name for pod in here.revisions.pods()] == ["chat-1-0"]


async def test_a_document_that_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 0, datetime.now(UTC))
        (tmp_path / "revisions" / "1" / "limits.json").unlink()
        here.revisions.settle()
        text = (tmp_path / "revisions" / "1" / "limits.json").read_text()
        assert document.from_json(text) == LIMITS


async def test_a_new_runtime_starts_the_pods_it_finds(tmp_path: Path) -> None:
    async with place(tmp_path) as first:
        first.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        first.revisions.create(2, NEW, 1, datetime.now(UTC))
        first.revisions.route(2)
        first.revisions.drain(1, 0)
    async with place(tmp_path) as second, GenerationClient(second.front.address) as client:
        second.revisions.settle()
        assert await served_by(client) == "new"
        seen = await second.see()
        assert [(r.number, r.draining, len(r.pods)) for r in seen] == [(1, True, 0), (2, False, 1)]


def test_the_document_is_what_a_server_reads(tmp_path: Path) -> None:
    from helios_server.rpc import limits as server

    file = tmp_path / "limits.json"
    file.write_text(document.to_json(LIMITS))
    assert server.read(file) == LIMITS
