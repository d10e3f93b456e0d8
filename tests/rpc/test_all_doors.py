"""Every door of one pod at once: a farewell to many streams, and secrets that are rotated under load.

Two dozen streams of a pod in this process; two hundred, and SIGTERM to a process of its own, in
`make test-long`.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from helios_proto.client import GenerationClient
from helios_proto.v1 import generation_pb2 as pb
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.openai import door as openai_door
from helios_server.rpc.server import Access as PodAccess
from helios_server.rpc.server import Ports
from helios_server.rpc.tls import Certificates, TlsFiles

from bench.serve.doors import DOORS, Access, Door
from bench.serve.load import ANSWERED, REFUSED, TOLD_WHEN, Caller
from tests.certificates import Authority, put
from tests.rpc.pods import Served, child, eventually, serving
from tests.rpc.test_serve import ready
from tests.sizes import LONG

STREAMS = 201 if LONG else 24
"""Over all three doors, as many on each."""


@dataclass(frozen=True)
class Leaving:
    """A pod, and how it is told to go: `leave` returns when it has gone."""

    ports: Ports
    leave: Callable[[], Awaitable[None]]


@asynccontextmanager
async def leaving(tiny: Path, folder: Path, drain_timeout: float) -> AsyncIterator[Leaving]:
    if not LONG:
        async with serving(tiny, max_batch_size=STREAMS, drain_timeout=drain_timeout) as pod:
            server = pod.server
            assert server is not None

            async def drain_and_close() -> None:
                await server.drain()
                await server.close()

            yield Leaving(pod.ports, drain_and_close)
        return
    rows = ("--max-queue-size", str(STREAMS), "--memory-mib", "8192")
    timeout = ("--drain-timeout", str(drain_timeout))
    async with child(folder, "--model", f"file://{tiny}", *rows, *timeout) as process:
        await ready(process)

        async def terminate() -> None:
            process.process.send_signal(signal.SIGTERM)
            code, errors = await process.end()
            assert code == 0, errors[-2000:]

        yield Leaving(await process.ports(), terminate)


def door(ports: Ports, name: str, access: Access | None = None) -> Door:
    """access: of a pod that speaks TLS."""
    kind = DOORS[name]
    address = kind.at(getattr(ports, kind.PORT))
    return kind(address.replace("http:", "https:") if access else address, "", access or Access())


async def taken(callers: list[Caller], pod: Leaving) -> bool:
    """Every stream has a row, or waits for one, or has ended already; some have begun."""
    calls = [call for caller in callers for call in caller.calls]
    ends = Counter(call.end for call in calls)
    assert set(ends) <= {"", ANSWERED}, {call.words for call in calls if call.words}
    async with GenerationClient(f"127.0.0.1:{pod.ports.port}") as client:
        load = await client.stub.GetLoad(pb.GetLoadRequest())
    known = ends[ANSWERED] + load.running + load.waiting
    return known >= STREAMS and any(call.came for call in calls)


async def through_all_doors(pod: Leaving, new: int) -> dict[str, Caller]:
    """Streams through every door, and the pod's farewell when it has taken all."""
    async with AsyncExitStack() as stack:
        doors = {name: await stack.enter_async_context(door(pod.ports, name)) for name in DOORS}
        callers = {name: Caller(each, 4, new) for name, each in doors.items()}
        streams = [asyncio.create_task(caller.burst(STREAMS // len(callers))) for caller in callers.values()]
        await eventually(lambda: taken(list(callers.values()), pod))
        await pod.leave()
        await asyncio.gather(*streams)
    return callers


@pytest.mark.long
async def test_what_runs_at_a_farewell_ends_by_itself(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_door, "_PATIENCE_SECONDS", 0.1)  # for connections that the clients here keep
    async with leaving(tiny, tmp_path, drain_timeout=600) as pod:
        callers = await through_all_doors(pod, new=60)
    for name, caller in callers.items():
        assert [call.words for call in caller.calls if call.end != ANSWERED] == [], name
    assert sum(len(caller.calls) for caller in callers.values()) == STREAMS


@pytest.mark.long
async def test_what_outlives_a_farewell_ends_with_when_to_come_back(tiny: Path, tmp_path: Path) -> None:
    """A status of gRPC has a place for it; in a stream of HTTP, whose head is out, words say it."""
    async with leaving(tiny, tmp_path, drain_timeout=0.2) as pod:
        callers = await through_all_doors(pod, new=3500)
    for name, caller in callers.items():
        ends = {call.end for call in caller.calls}
        assert ends == {REFUSED if name == "openai" else TOLD_WHEN}, (name, caller.calls[0].words)
        assert all("Send the request to another server" in call.words for call in caller.calls)


# -- rotation ------------------------------------------------------------------------------------------------


@dataclass
class Secrets:
    folder: Path
    authority: Authority

    @property
    def access(self) -> PodAccess:
        files = TlsFiles(self.folder / "pod/tls.crt", self.folder / "pod/tls.key")
        return PodAccess(Certificates(files), CallerTokens(self.folder / "tokens"))

    def give(self, name: str) -> Access:
        """A token of that name, and what a client with it shows."""
        put(self.folder / "tokens" / name, f"token-of-{name}".encode())
        return Access(f"token-of-{name}", self.folder / "ca.crt")


@pytest.fixture
def held(tmp_path: Path) -> Secrets:
    made = Secrets(tmp_path, Authority())
    made.authority.write(tmp_path / "ca.crt")
    made.authority.issue(tmp_path / "pod")
    (tmp_path / "tokens").mkdir()
    return made


@pytest.mark.usefixtures("quick_looks")
async def test_certificates_and_tokens_are_rotated_under_load_and_no_door_loses_a_request(
    tiny: Path, held: Secrets
) -> None:
    """Callers go on with what they have until both are replaced, and those with the new ones beside them."""
    first, outcomes = held.give("first"), Counter[str]()
    async with serving(tiny, access=held.access, max_queue_size=200) as pod, AsyncExitStack() as stack:
        done = asyncio.Event()

        async def call(who: str, each: Door) -> None:
            while not done.is_set():
                call = await Caller(each, 4, 3).one()
                outcomes[f"{who} {call.end}" if call.end == ANSWERED else f"{who} {call.words}"] += 1

        async def calling(who: str, access: Access) -> list[asyncio.Task[None]]:
            doors = {n: await stack.enter_async_context(door(pod.ports, n, access)) for n in DOORS}
            return [asyncio.create_task(call(f"{who} {name}", each)) for name, each in doors.items()]

        old = await calling("old", first)
        held.authority.issue(held.folder / "pod")
        second = held.give("second")
        await eventually(lambda: reloaded(pod))
        new = await calling("new", second)
        seen = Counter(outcomes)
        expected = {f"{who} {name} {ANSWERED}" for who in ("old", "new") for name in DOORS}
        await eventually(lambda: went_on(seen, outcomes, expected))
        done.set()
        await asyncio.gather(*old, *new)
        assert set(outcomes) == expected
        (held.folder / "tokens" / "first").unlink()
        for name in DOORS:
            await eventually(lambda name=name: is_refused(pod, name, first))  # type: ignore[misc]


async def reloaded(pod: Served) -> bool:
    _, metrics = await pod.page("/metrics")
    wanted = 'helios_secret_reloads_total{{model_name="chat",result="applied",what="{}"}} 1.0'
    return all(wanted.format(what) in metrics for what in ("certificate", "tokens"))


async def went_on(before: Counter[str], now: Counter[str], expected: set[str]) -> bool:
    return all(now[name] > before[name] + 2 for name in expected)


async def is_refused(pod: Served, name: str, access: Access) -> bool:
    async with door(pod.ports, name, access) as opened:
        return (await Caller(opened, 4, 1).one()).end not in (ANSWERED, TOLD_WHEN, REFUSED)
