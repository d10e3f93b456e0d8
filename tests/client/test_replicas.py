"""One channel, and pods that are processes behind one name, as a headless Service has them: they share its
requests alike, and a surge loses none."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helios_client import AsyncClient
from helios_contract import limits as document
from helios_server.rpc.server import Ports

from tests.client.names import names
from tests.rpc.pods import PROMPT, Child, Served, child, eventually, limits_for, serving, speaking

CALLERS, COUNTED, TOKENS = 4, 40, 2
OLD, NEW = ("127.0.0.2", "127.0.0.3"), "127.0.0.4"
NAME = "chat-replicas.team-a.svc"


@asynccontextmanager
async def replica(folder: Path, model: Path, host: str, port: int) -> AsyncIterator[tuple[Child, Served]]:
    """A process, and clients of it alone."""
    folder.mkdir()
    limits = folder / "limits.json"
    limits.write_text(document.to_json(limits_for(model)))
    words = ("--limits", str(limits), "--model-name", "chat", "--host", host)
    async with (
        child(folder, *words, ports=(port, 0, 0)) as process,
        speaking(await process.ports(), host) as served,
    ):
        yield process, served


async def is_ready(pod: Served) -> bool:
    return bool((await pod.telemetry()).ready)


async def finished(pod: Served) -> int:
    return int((await pod.telemetry()).requests_finished)


@dataclass
class Callers:
    """Who never pause, all on one channel; whatever fails is raised at the end."""

    client: AsyncClient
    _stopped: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Callers:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while not self._stopped:
            answer = await self.client.generate(PROMPT, max_tokens=TOKENS, ignore_eos=True)
            assert answer.completion_tokens == TOKENS

    async def shares(self, pods: Sequence[Served]) -> list[int]:
        """Requests that each replica finished while all together finished some."""
        for each in pods:
            await self._until(each, 1)
        before = await asyncio.gather(*map(finished, pods))
        await self._until(pods[-1], before[-1] + COUNTED)
        after = await asyncio.gather(*map(finished, pods))
        return [now - then for now, then in zip(after, before, strict=True)]

    async def _until(self, pod: Served, least: int) -> None:
        async def holds() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return await finished(pod) >= least

        await eventually(holds)


async def test_replicas_share_one_channel_and_a_surge_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack, names(*OLD) as (dns, server):
        with socket.create_server((OLD[0], 0)) as taken:
            port = taken.getsockname()[1]
        starting = (replica(tmp_path / host, tiny, host, port) for host in OLD)
        (first, served), (second, other) = await asyncio.gather(*map(stack.enter_async_context, starting))
        old = (served, other)
        for each in old:
            await eventually(lambda pod=each: is_ready(pod))
        client = await stack.enter_async_context(AsyncClient(f"dns://{server}/{NAME}:{port}"))
        async with Callers(client) as callers:
            few, many = sorted(await callers.shares(old))
            assert many - few <= 0.2 * many, (few, many)

            at = Ports(port, 0, 0, 0)
            successor = await stack.enter_async_context(serving(tiny, host=NEW, at=at))
            dns.addresses = [NEW]
            for process in (first, second):
                process.process.send_signal(signal.SIGTERM)
            for process in (first, second):
                code, said = await process.end()
                assert code == 0, said
            assert (await callers.shares([successor]))[0] >= COUNTED
