"""Callers' tokens at both doors: who is refused before any work, what is counted by name, and rotation."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as reflected
from grpc_reflection.v1alpha import reflection_pb2_grpc
from helios_proto.v1 import control_pb2, control_pb2_grpc
from helios_proto.v1 import generation_pb2 as pb
from helios_server.errors import InvalidRequest
from helios_server.rpc.auth import Token
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.errors import Unauthenticated
from helios_server.rpc.server import Access
from helios_server.rpc.tls import Certificates, TlsFiles

from tests.certificates import Authority, put
from tests.rpc.openai_door.clients import CHAT, SAY, TEXT, post, raw, send, url
from tests.rpc.pods import Served, eventually, generate_request, serving

pytestmark = pytest.mark.usefixtures("quick_looks")
PAGE = b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: pod\r\nContent-Length: 9\r\nContent-Type: text/json\r\n\r\n"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


class Tokens:
    """A folder of them, as a Secret is mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "..data").mkdir()
        self.control = put(folder.parent / "control", secrets.token_urlsafe(32).encode())
        self.alice = self.give("alice")
        self.bob = self.give("bob")

    def give(self, name: str) -> str:
        token = secrets.token_urlsafe(32)
        put(self.folder / name, f"{token}\n".encode())
        return token

    def access(self, certificates: Certificates | None = None) -> Access:
        return Access(certificates, CallerTokens(self.folder, Token(self.control)))


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens")


@dataclass
class Guarded:
    pod: Served
    tokens: Tokens

    async def generate(self, token: str | None, **asked: Any) -> pb.Complete:
        call = self.pod.client.stub.Generate(generate_request(**asked), metadata=bearer(token))
        *_, last = [message async for message in call]
        return last.complete

    async def refused(self, token: str | None) -> str:
        """Details of the status; it is always the same."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.generate(token)
        assert error.value.code() is UNAUTHENTICATED
        return error.value.details() or ""

    async def metrics(self) -> str:
        return (await self.pod.page("/metrics"))[1]

    def sdk(self, token: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{url(self.pod)}/v1", api_key=token, max_retries=0)


@pytest.fixture
async def guarded(tiny: Path, tokens: Tokens) -> AsyncIterator[Guarded]:
    async with serving(tiny, token=tokens.control, access=tokens.access()) as pod:
        yield Guarded(pod, tokens)


def bearer(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [("authorization", f"Bearer {token}")]


async def test_grpc_asks_for_a_token_before_any_work(guarded: Guarded) -> None:
    assert (await guarded.generate(guarded.tokens.alice)).usage.completion_tokens == 8
    assert "no bearer token" in await guarded.refused(None)
    control = guarded.tokens.control.read_text()
    for wrong in ("wrong", guarded.tokens.alice[:-1], guarded.tokens.alice + "x", "alice", control):
        assert "unknown here, or has been revoked" in await guarded.refused(wrong)
    stub = guarded.pod.client.stub
    others: list[Callable[[], Awaitable[object]]] = [
        lambda: stub.GetLoad(pb.GetLoadRequest()),
        lambda: stub.GetModelInfo(pb.GetModelInfoRequest()),
        lambda: stub.Abort(pb.AbortRequest(request_id="r")),
    ]
    for call in others:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call()
        assert error.value.code() is UNAUTHENTICATED
    assert 'request_success_total{finished_reason="length",model_name="chat"} 1.0' in await guarded.metrics()


async def test_health_is_open_and_reflection_is_not(guarded: Guarded) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{guarded.pod.ports.port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == answer.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflected.ServerReflectionRequest(list_services="")]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            _ = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
        assert error.value.code() is UNAUTHENTICATED
        told = stub.ServerReflectionInfo(iter(asked), metadata=bearer(guarded.tokens.bob))
        assert [answer async for answer in told]


async def test_http_asks_for_a_token_in_openais_words(guarded: Guarded) -> None:
    for path in (CHAT, TEXT):
        answer = await post(guarded.pod, path)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="helios"')
        assert (answer.error["type"], answer.error["code"]) == ("authentication_error", "invalid_api_key")
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/models/chat"), ("GET", "/nothing")):
        assert (await send(guarded.pod, method, path)).status == 401
    for word in ("", "Bearer", "Bearer ", "Basic x", f"Basic {guarded.tokens.alice}", "Bearer \xe9"):
        assert (await send(guarded.pod, "POST", CHAT, b"x", {"Authorization": word})).status == 401
    assert b"<title>HELIOS</title>" in await raw(guarded.pod, PAGE)
    # A body that never comes is not waited for.
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.pod.ports.http_port)
    writer.write(HEAD)
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_openais_sdk_sends_its_key_over_https(tiny: Path, tokens: Tokens, tmp_path: Path) -> None:
    authority = Authority()
    folder = authority.issue(tmp_path / "pod")
    certificates = Certificates(TlsFiles(folder / "tls.crt", folder / "tls.key"))
    ca = authority.write(tmp_path / "ca.crt")
    async with serving(tiny, token=tokens.control, access=tokens.access(certificates)) as pod:
        base = f"https://127.0.0.1:{pod.ports.http_port}/v1"
        for key, accepted in ((tokens.alice, True), ("wrong", False)):
            http = openai.DefaultAsyncHttpxClient(verify=ssl.create_default_context(cafile=ca))
            async with openai.AsyncOpenAI(base_url=base, api_key=key, http_client=http) as client:
                if accepted:
                    stream = await client.chat.completions.create(
                        model="chat", messages=SAY, max_tokens=3, stream=True
                    )
                    assert [chunk async for chunk in stream]
                else:
                    with pytest.raises(openai.AuthenticationError):
                        await client.models.list()


async def test_control_and_callers_have_nothing_of_each_other(guarded: Guarded) -> None:
    control = guarded.tokens.control.read_text()
    assert "unknown here" in await guarded.refused(control)
    at = f"127.0.0.1:{guarded.pod.ports.control_port}"
    async with grpc.aio.insecure_channel(at) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        for token, code in ((guarded.tokens.alice, "PERMISSION_DENIED"), (None, "UNAUTHENTICATED")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.GetTelemetry(control_pb2.GetTelemetryRequest(), metadata=bearer(token))
            assert error.value.code().name == code
        await stub.GetTelemetry(control_pb2.GetTelemetryRequest(), metadata=bearer(control))


async def test_requests_and_tokens_are_counted_by_name_and_secrets_nowhere(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = guarded.tokens.alice, guarded.tokens.bob
    prompt = pb.TokenizedInput(input_ids=[70, 71, 72])
    await guarded.generate(alice, tokenized=prompt)
    async with guarded.sdk(bob) as client:
        await client.completions.create(model="chat", prompt=[70, 71], max_tokens=3, temperature=0)
    with pytest.raises(grpc.aio.AioRpcError):
        await guarded.generate(bob, max_tokens=0)
    refusals = [await guarded.refused("some-secret-that-is-wrong"), await guarded.refused(None)]
    answers = [(await post(guarded.pod, CHAT)).body]
    metrics = await guarded.metrics()
    for line in (
        'caller_requests_total{caller="alice",code="OK",model_name="chat"} 1.0',
        'caller_requests_total{caller="bob",code="OK",model_name="chat"} 1.0',
        'caller_requests_total{caller="bob",code="INVALID_ARGUMENT",model_name="chat"} 1.0',
        'caller_prompt_tokens_total{caller="alice",model_name="chat"} 3.0',
        'caller_generation_tokens_total{caller="alice",model_name="chat"} 8.0',
        'caller_prompt_tokens_total{caller="bob",model_name="chat"} 2.0',
        'request_failure_total{code="UNAUTHENTICATED",model_name="chat"} 3.0',
    ):
        assert f"helios_{line}" in metrics
    told = "\n".join([metrics, caplog.text, *refusals, *map(str, answers)])
    for secret in (alice, bob, guarded.tokens.control.read_text(), "some-secret-that-is-wrong"):
        assert secret not in told


async def test_a_malformed_request_is_not_logged_with_its_secrets(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    for head in (b"GET /v1/models HTTP/1.1\r\nHost: pod\r\n", b"GET / HTTP/9\r\n"):
        answer = await raw(guarded.pod, head + b"Authorization: Bearer \x00secret\r\n\r\n")
        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert "secret" not in caplog.text


async def test_a_caller_ends_and_meets_its_own_requests_alone(guarded: Guarded) -> None:
    alice, bob = guarded.tokens.alice, guarded.tokens.bob
    stub = guarded.pod.client.stub
    running = [
        asyncio.create_task(guarded.generate(token, max_tokens=3000, request_id="mine"))
        for token in (alice, bob)
    ]

    async def both_run() -> bool:
        load = await stub.GetLoad(pb.GetLoadRequest(), metadata=bearer(alice))
        return load.running == 2

    await eventually(both_run)
    found = await stub.Abort(pb.AbortRequest(request_id="mine"), metadata=bearer(bob))
    assert found.found
    assert (await running[1]).finish_reason == pb.FINISH_REASON_ABORT
    assert not running[0].done()
    assert (await stub.Abort(pb.AbortRequest(request_id="alice/mine"), metadata=bearer(bob))).found is False
    assert (await stub.Abort(pb.AbortRequest(request_id="mine"), metadata=bearer(alice))).found
    await running[0]


async def test_a_caller_finds_no_prompt_of_another(guarded: Guarded) -> None:
    alice, bob = guarded.tokens.alice, guarded.tokens.bob
    prompt = pb.TokenizedInput(input_ids=list(range(3, 70)))

    async def hits() -> float:
        metrics = await guarded.metrics()
        lines = [line for line in metrics.splitlines() if line.startswith("helios_prefix_cache_hits_total")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    expected = 0
    for token, salt, found in (
        (alice, "", 0),
        (bob, "", 0),
        (alice, "", 64),
        (bob, "s", 0),
        (alice, "s", 0),
        (bob, "s", 64),
    ):
        await guarded.generate(token, tokenized=prompt, cache_salt=salt)
        expected += found
        assert await hits() == expected
    async with guarded.sdk(bob) as client:
        asked = {"model": "chat", "prompt": list(range(3, 70)), "max_tokens": 2}
        await client.completions.create(**asked, extra_body={"cache_salt": "s"})
        assert await hits() == expected + 64
    with pytest.raises(grpc.aio.AioRpcError, match="cache_salt: has 257"):
        await guarded.generate(bob, cache_salt="s" * 257)


async def test_tokens_are_rotated_under_load_and_no_request_is_lost(guarded: Guarded) -> None:
    """A new one is given beside the old one, callers change over, the old one is taken away."""
    outcomes: Counter[str] = Counter()
    done, token = asyncio.Event(), guarded.tokens.alice

    async def calls() -> None:
        while not done.is_set():
            try:
                outcomes[str(len((await guarded.generate(token, max_tokens=2)).output_ids))] += 1
            except grpc.aio.AioRpcError as error:
                outcomes[f"{error.code()}"] += 1

    async def accepted(offered: str) -> bool:
        try:
            await guarded.pod.client.stub.GetLoad(pb.GetLoadRequest(), metadata=bearer(offered))
        except grpc.aio.AioRpcError as error:
            return error.code() is not UNAUTHENTICATED
        return True

    async def is_refused(offered: str) -> bool:
        return not await accepted(offered)

    work = [asyncio.create_task(calls()) for _ in range(3)]
    stream = asyncio.create_task(guarded.generate(token, max_tokens=300))
    new = guarded.tokens.give("alice-2")
    await eventually(lambda: accepted(new))
    old, token = token, new
    done.set()
    await asyncio.gather(*work)
    done.clear()
    work = [asyncio.create_task(calls()) for _ in range(3)]
    (guarded.tokens.folder / "alice").unlink()
    await eventually(lambda: is_refused(old))
    done.set()
    await asyncio.gather(*work)
    assert len((await stream).output_ids) == 300  # what had begun goes on
    assert set(outcomes) == {"2"}
    assert (await post(guarded.pod, CHAT)).status == 401


def nothing(tokens: Tokens) -> None:
    for path in tokens.folder.glob("[a-z]*"):
        path.unlink()


def no_folder(tokens: Tokens) -> None:
    tokens.folder.rename(tokens.folder.parent / "elsewhere")


def empty(tokens: Tokens) -> None:
    put(tokens.folder / "bob", b"\n")


def two_lines(tokens: Tokens) -> None:
    put(tokens.folder / "bob", b"a\nb\n")


def twice(tokens: Tokens) -> None:
    put(tokens.folder / "bob", tokens.alice.encode())


def controls(tokens: Tokens) -> None:
    put(tokens.folder / "bob", tokens.control.read_bytes())


def too_many(tokens: Tokens) -> None:
    for index in range(1000):
        (tokens.folder / f"c{index}").write_text(str(index))


BROKEN = {
    no_folder: r"auth-tokens: \S+tokens cannot be read \(No such",
    empty: r"auth-tokens: \S+bob is empty; Write",
    two_lines: r"auth-tokens: \S+bob holds what no header can carry",
    twice: r"auth-tokens: \S+bob holds the token of alice, too",
    controls: r"auth-tokens: \S+bob is the Control port's token",
    too_many: r"auth-tokens: \S+tokens holds 1002 tokens",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_tokens_that_cannot_be_used_are_named_and_the_old_ones_stay(
    tokens: Tokens, breaks: Callable[[Tokens], None], caplog: pytest.LogCaptureFixture
) -> None:
    callers = CallerTokens(tokens.folder, Token(tokens.control))
    breaks(tokens)
    with pytest.raises(InvalidRequest, match=BROKEN[breaks]):
        CallerTokens(tokens.folder, Token(tokens.control))
    assert [callers.look(), callers.look(), callers.look()] == [None, False, None]
    assert callers.authenticate(f"Bearer {tokens.bob}") == "bob"
    assert tokens.alice not in caplog.text
    assert "tokens in use stay" in caplog.text


def test_a_secret_is_followed_as_a_kubelet_replaces_it(tmp_path: Path) -> None:
    """Files are links into a folder that is a link itself; that one is put in its place."""
    mounted = tmp_path / "mounted"

    def hold(version: str, **content: str) -> None:
        (mounted / version).mkdir(parents=True)
        for name, token in content.items():
            (mounted / version / name).write_text(token)
        (mounted / "..new").symlink_to(version)
        (mounted / "..new").replace(mounted / "..data")
        for name in content:
            if not (mounted / name).is_symlink():
                (mounted / name).symlink_to(f"..data/{name}")

    hold("..1", alice="first", bob="other")
    callers = CallerTokens(mounted)
    assert callers.names == {"alice", "bob"}
    hold("..2", alice="second", carol="third")
    (mounted / "bob").unlink()
    assert [callers.look(), callers.look()] == [None, True]
    assert callers.names == {"alice", "carol"}
    assert callers.authenticate("Bearer second") == "alice"
    for gone in ("first", "other"):
        with pytest.raises(Unauthenticated):
            callers.authenticate(f"Bearer {gone}")


def test_a_folder_that_was_emptied_leaves_nobody(tokens: Tokens) -> None:
    callers = CallerTokens(tokens.folder)
    nothing(tokens)
    with pytest.raises(InvalidRequest, match="holds no token"):
        CallerTokens(tokens.folder)
    assert [callers.look(), callers.look()] == [None, True]
    assert callers.names == frozenset()
