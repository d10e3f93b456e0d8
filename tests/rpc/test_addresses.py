"""Both families of addresses, on real sockets: what listens on `::` is reached by both, what dials writes
brackets."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import grpc
import pytest
from helios_operator.control.client import ControlClient
from helios_operator.errors import AddressInUseError
from helios_operator.local.front import Front
from helios_operator.local.probes import probe
from helios_proto import addresses
from helios_proto.client import GenerationClient
from helios_proto.v1 import generation_pb2 as pb
from helios_server.errors import InvalidRequest
from helios_server.rpc.http import HttpServer
from helios_server.rpc.server import PodServer, Ports
from helios_server.serve import main, parse

from tests.cli.command import helios
from tests.rpc.pods import Child, child, eventually, generate_request, limits_for

LOOPBACKS = ("127.0.0.1", "::1")


# -- how they are written


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("::1", 8034, "[::1]:8034"),
        ("[::1]", 8034, "[::1]:8034"),
        ("::", 0, "[::]:0"),
        ("fd00:10:244::7", 8033, "[fd00:10:244::7]:8033"),
        ("fe80::1%eth0", 8033, "[fe80::1%eth0]:8033"),
        ("::ffff:10.0.0.7", 1, "[::ffff:10.0.0.7]:1"),
        ("10.0.0.7", 8033, "10.0.0.7:8033"),
        ("chat.default.svc", 65535, "chat.default.svc:65535"),
    ],
)
def test_an_address_is_written_and_read(host: str, port: int, address: str) -> None:
    assert addresses.join(host, port) == address
    assert addresses.split(address) == (addresses.bare(host), port)


@pytest.mark.parametrize(
    "address", ["::1:8033", "::1", "host", "host:", ":8033", "host:65536", "h:+1", "[::1]"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"\[ADDRESS\]:PORT|is no HOST:PORT"):
        addresses.split(address)


def test_loopback_is_known_in_both_families() -> None:
    assert all(map(addresses.is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(addresses.is_loopback, ("::", "[::]", "0.0.0.0", "10.0.0.7", "fd00::1", "name", "")))


# -- what listens


def reached(port: int) -> list[str]:
    """The loopback addresses on which somebody listens."""
    found = []
    for host in LOOPBACKS:
        try:
            socket.create_connection((host, port), timeout=60).close()
        except OSError:
            continue
        found.append(host)
    return found


@pytest.mark.parametrize(
    ("host", "families"),
    [
        ("::", ["127.0.0.1", "::1"]),
        ("[::]", ["127.0.0.1", "::1"]),
        ("::1", ["::1"]),
        ("[::1]", ["::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
    ],
)
def test_a_host_is_what_it_says(host: str, families: list[str]) -> None:
    sockets = addresses.listen(host, 0)
    assert reached(addresses.port_of(sockets)) == families
    for each in sockets:
        each.close()


def test_a_name_is_all_its_addresses_on_one_port() -> None:
    sockets = addresses.listen("localhost", 0)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    known = {entry[4][0] for entry in socket.getaddrinfo("localhost", None)}
    assert set(reached(addresses.port_of(sockets))) == known & set(LOOPBACKS)
    for each in sockets:
        each.close()


def test_without_ipv6_all_addresses_are_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)  # as a kernel without it has it
    [only] = addresses.listen("::", 0)
    assert only.family is socket.AF_INET
    assert reached(addresses.port_of([only])) == ["127.0.0.1"]
    only.close()


def test_a_port_in_use_is_named_as_it_is_dialled() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"Address already in use$"):
            addresses.listen("::1", port)
        front = Front(lambda: [])
        with pytest.raises(AddressInUseError, match=rf"^port: \[::1\]:{port} is in use; stop what"):
            asyncio.run(front.open("::1", port))


# -- the pod


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret")
    return file


async def up(pod: Child, host: str) -> Ports:
    ports = await pod.ports()

    async def ready() -> bool:
        return await probe(host, ports.metrics_port, "/readyz", 5) == 200

    await eventually(ready, 180)
    return ports


async def answer(address: str) -> pb.Complete:
    async with GenerationClient(address) as client:
        return await client.generate(generate_request()).complete()


async def test_a_pod_on_all_addresses_is_reached_by_both_families(
    tiny: Path, tmp_path: Path, token: Path
) -> None:
    arguments = ("--model", f"file://{tiny}", "--host", "::", "--control-token-file", str(token))
    async with child(tmp_path, *arguments) as pod:
        ports = await up(pod, "::1")
        answers = []
        for host in LOOPBACKS:
            answers.append((await answer(addresses.join(host, ports.port))).output_ids)
            control = ControlClient(addresses.join(host, ports.control_port), "secret")
            seen = await control.telemetry()
            assert seen is not None
            await control.close()
            assert await probe(host, ports.metrics_port, "/healthz", 5) == 200
        assert answers[0] == answers[1]


async def test_everything_speaks_to_a_pod_that_has_ipv6_alone(tiny: Path, tmp_path: Path) -> None:
    """The pod, the front address and the command, none of which dials an IPv4 address."""
    async with child(tmp_path, "--model", f"file://{tiny}", "--host", "::1") as pod:
        ports = await up(pod, "::1")
        assert reached(ports.port) == reached(ports.control_port) == ["::1"]
        front = Front(lambda: [("::1", ports.port)])
        await front.open("::1", 0)
        assert front.address.startswith("[::1]:")
        ask = ("generate", "Hello", "--max-tokens", 4, "--address", front.address, "--json")
        done = await asyncio.to_thread(helios, *ask)
        assert done.code == 0, done.err
        assert json.loads(done.out)["completionTokens"] == 4
        assert (await answer(front.address)).output_ids
        await front.close()
        silent = ControlClient(addresses.join("::1", ports.metrics_port), "secret")
        assert await silent.telemetry() is None
        await silent.close()


async def test_the_pages_take_both_families() -> None:
    server = HttpServer({})
    port = await server.listen("::", 0)
    assert [await probe(host, port, "/nothing", 5) for host in LOOPBACKS] == [404, 404]
    await server.close()


async def test_a_port_that_a_pod_cannot_bind_is_named(tiny: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        server = PodServer("chat", parse(["--model", f"file://{tiny}"]).engine, limits_for(tiny))
        with pytest.raises(InvalidRequest) as raised:
            await server.open("::1", Ports(port, 0, 0, 0))
    words = f"port: [::1]:{port} cannot be bound (Address already in use); Choose another --port"
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize("host", ["::", "[::]", "fd00::1", "0.0.0.0"])
def test_control_without_a_token_is_for_this_machine(
    tiny: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", f"file://{tiny}", "--host", host]) == 2
    assert f"control-token-file: is missing, and {host} can be reached" in capsys.readouterr().err


# -- the command


@pytest.mark.parametrize("address", ["::1:8033", "::1", "fd00::7"])
def test_an_address_without_brackets_is_refused_with_the_fix(address: str) -> None:
    done = helios("generate", "Hello", "--address", address)
    assert done.code == 2
    expected = f"error: address: {address} does not say where its port begins; write [ADDRESS]:PORT"
    assert expected in done.err
    with pytest.raises(ValueError, match=r"\[ADDRESS\]:PORT"):
        GenerationClient(address)


async def test_nobody_there_is_said_with_the_address() -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await answer("[::1]:1")
