"""A pod goes away: what runs ends by itself, what comes is refused with when to come back, nothing is cut."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from helios_server.rpc.server import Ports

from tests.rpc.openai_door.clients import BODIES, CHAT, SAY, TEXT, events, post, sdk, send, url
from tests.rpc.pods import Served, child, eventually, serving, speaking
from tests.rpc.test_serve import limits_file, ready

TOKENS = 400


async def test_while_the_model_loads_clients_are_told_to_come_back(tiny: Path) -> None:
    async with serving(tiny, load=False) as pod:
        assert pod.server is None or pod.server.pod.engine is None
        for answer in (await post(pod, CHAT), await send(pod, "GET", "/v1/models")):
            assert (answer.status, answer.error["type"]) == (503, "server_error")
            assert answer.headers["Retry-After"] == "1"


async def test_a_drain_lets_streams_end_and_refuses_what_comes(pod: Served) -> None:
    assert pod.server is not None
    async with aiohttp.ClientSession() as session:
        body = BODIES[CHAT] | {"stream": True, "max_tokens": TOKENS, "ignore_eos": True}
        async with session.post(url(pod) + CHAT, json=body) as running:
            await running.content.readuntil(b"data: ")
            whole = asyncio.create_task(post(pod, TEXT, max_tokens=TOKENS, ignore_eos=True))
            async with session.get(f"{url(pod)}/v1/models") as kept:  # a connection that idles from now on
                assert "close" not in kept.headers.get("Connection", "")
                await kept.read()
            await eventually(lambda: _calls(pod, 2))
            draining = asyncio.create_task(pod.server.drain())
            await eventually(lambda: _draining(pod))
            async with session.post(url(pod) + TEXT, json=BODIES[TEXT]) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
                assert refused.headers["Connection"] == "close"
                assert (await refused.json())["error"]["code"] == "unavailable"
            assert (await post(pod, TEXT)).status == 503  # on a new connection
            assert not draining.done()
            events = (await running.read()).decode().strip().split("\n\n")
            assert events[-1] == "data: [DONE]"
            answered = await whole
            assert (answered.status, answered.headers["Connection"]) == (200, "close")
            assert answered.body["usage"]["completion_tokens"] == TOKENS
    async with asyncio.timeout(20):
        await draining


async def _calls(pod: Served, calls: int) -> bool:
    assert pod.server is not None
    return pod.server.pod.calls == calls


async def _running(pod: Served, requests: int) -> bool:
    return (await pod.load()).running == requests


async def _draining(pod: Served) -> bool:
    assert pod.server is not None
    return pod.server.pod.health.draining


async def test_a_busy_client_on_an_old_connection_is_told_and_not_cut(pod: Served) -> None:
    """Nothing runs when the drain begins: the connection stands until its client has heard."""
    assert pod.server is not None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        async with session.post(url(pod) + TEXT, json=BODIES[TEXT]) as answer:
            assert answer.status == 200
            await answer.read()
        draining = asyncio.create_task(pod.server.drain())
        await eventually(lambda: _draining(pod))
        await asyncio.sleep(0.3)  # long after the last request has ended
        assert not draining.done()
        async with session.post(url(pod) + TEXT, json=BODIES[TEXT]) as answer:
            assert (answer.status, answer.headers["Connection"]) == (503, "close")
        async with asyncio.timeout(20):
            await draining


async def test_sigterm_under_the_sdks_own_retries_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    """Callers that never pause, on a pod that is told to stop: whoever is not answered hears a 503."""
    file = limits_file(tmp_path, tiny, max_batch_size=8, max_queue_size=64)
    outcomes: Counter[str] = Counter()
    async with child(tmp_path, "--limits", str(file), "--model-name", "chat") as process:
        ports = await process.ports()
        await ready(process)
        async with speaking(ports) as pod, sdk(pod) as client:
            stopped = asyncio.Event()

            async def call() -> None:
                while not stopped.is_set():
                    try:
                        asked: dict[str, Any] = {"model": "chat", "messages": SAY, "max_tokens": 4}
                        answer = await client.chat.completions.create(**asked)
                        outcomes["ok" if answer.choices[0].finish_reason else "cut"] += 1
                    except openai.InternalServerError as error:
                        outcomes[f"refused {error.status_code} {error.response.headers['Retry-After']}"] += 1
                        return
                    except openai.OpenAIError as error:
                        outcomes[repr(error)] += 1
                        return

            callers = [asyncio.create_task(call()) for _ in range(8)]
            long = asyncio.create_task(
                client.completions.create(
                    model="chat", prompt="x", max_tokens=TOKENS, extra_body={"ignore_eos": True}
                )
            )
            await eventually(lambda: _over(outcomes, 20))
            process.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*callers)
            usage = (await long).usage
            assert usage is not None
            assert usage.completion_tokens == TOKENS
            stopped.set()
        code, _ = await process.end()
    assert code == 0
    assert set(outcomes) == {"ok", "refused 503 1"}
    assert outcomes["refused 503 1"] == 8


async def test_what_outlives_the_drain_ends_with_the_word_to_come_back(tiny: Path) -> None:
    async with serving(tiny) as pod:
        assert pod.server is not None
        asked = {"max_tokens": 3500, "ignore_eos": True}
        stream = asyncio.create_task(events(pod, CHAT, **asked))
        whole = asyncio.create_task(post(pod, TEXT, **asked))
        await eventually(lambda: _running(pod, 2))
        await pod.server.close()
        *_, last = await stream
        refused = await whole
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert last == {"error": refused.error}
        assert refused.error["message"] == "server: was stopped; Send the request to another server"


async def test_a_crowd_at_once_is_answered_or_told_when_to_come_back(tiny: Path) -> None:
    calls = 400  # of them each takes a descriptor here and one at the other end
    outcomes: Counter[Any] = Counter()
    async with serving(tiny, max_batch_size=4, max_queue_size=16) as pod:
        for answer in await asyncio.gather(*(post(pod, TEXT) for _ in range(calls))):
            outcomes[answer.status, "Retry-After" in answer.headers] += 1
        assert set(outcomes) == {(200, False), (429, True)}
        assert outcomes.total() == calls
        assert (await post(pod, TEXT)).status == 200


async def _over(outcomes: Counter[str], least: int) -> bool:
    return outcomes["ok"] >= least


async def test_the_door_may_stay_closed(tiny: Path) -> None:
    from helios_server.engine.limits import EngineConfig
    from helios_server.rpc.server import PodServer

    from tests.rpc.pods import limits_for

    server = PodServer("chat", EngineConfig(dtype="float64", threads=1), limits_for(tiny))
    ports = await server.open("127.0.0.1", Ports(0, 0, 0, None))
    assert ports.http_port is None
    await server.close()


@pytest.mark.parametrize("word", ["0", "free", "8123"])
def test_how_the_port_is_given(word: str) -> None:
    from helios_server.serve import parse

    port = parse(["--model", "hf://org/x", "--memory-mib", "900", "--http-port", word]).ports.http_port
    assert port == {"0": None, "free": 0, "8123": 8123}[word]
