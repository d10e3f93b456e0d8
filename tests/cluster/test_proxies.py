"""Who is spoken to through a proxy: the API server, as HTTPS_PROXY and NO_PROXY say; pods never."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import kopf
import pytest
from helios_operator import app
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import NODE
from helios_operator.cluster.proxies import proxy_for
from helios_operator.control.client import ControlClient
from helios_operator.errors import KubeconfigError
from helios_server.errors import HeliosError
from helios_server.profile.prompts import from_pod
from kubernetes.aio.client import Configuration

PROXY = "http://proxy.corp:3128"
_NAMES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "grpc_proxy",
    "no_grpc_proxy",
)


@pytest.mark.parametrize(
    ("no_proxy", "server"),
    [
        ("10.0.0.0/8", "https://10.96.0.1"),
        ("10.0.0.0/8", "https://10.96.0.1:6443"),
        ("10.1.2.3/8", "https://10.96.0.1:443"),
        ("192.168.0.0/16, 10.0.0.0/8", "https://10.96.0.1"),
        ("192.168.0.0/16 10.0.0.0/8", "https://10.96.0.1"),
        (" ,10.0.0.0/8,, ", "https://10.96.0.1"),
        ("10.96.0.1", "https://10.96.0.1:6443"),
        ("10.96.0.1:6443", "https://10.96.0.1:6443"),
        ("10.96.0.1:443", "https://10.96.0.1"),
        ("10.0.0.0/8", "https://[::ffff:10.96.0.1]:443"),
        ("fd00::/8", "https://[fd00:10:96::1]:443"),
        ("[fd00::]/8", "https://[fd00:10:96::1]"),
        ("fd00:10:96::1", "https://[fd00:10:96::1]:6443"),
        ("fd00:10:96:0::1", "https://[fd00:10:96::1]:6443"),
        ("[fd00:10:96::1]:6443", "https://[fd00:10:96::1]:6443"),
        ("*", "https://10.96.0.1"),
        ("*", "https://api.example.com:6443"),
        ("example.com,*", "https://[fd00::1]"),
        (".example.com", "https://api.example.com"),
        ("example.com", "https://api.example.com:6443"),
        ("*.example.com", "https://api.example.com"),
        ("api.example.com", "https://api.example.com"),
        ("api.example.com", "https://API.Example.com."),
        ("API.EXAMPLE.COM", "https://api.example.com"),
        (".svc,.cluster.local", "https://kubernetes.default.svc"),
        ("api.example.com:6443", "https://api.example.com:6443"),
        ("", "https://127.0.0.1:6443"),
        ("", "https://localhost:6443"),
        ("", "https://[::1]:6443"),
    ],
)
@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_what_no_proxy_names_is_spoken_to_directly(
    no_proxy: str, server: str, spelling: Callable[[str], str]
) -> None:
    assert proxy_for(server, {spelling("https_proxy"): PROXY, spelling("no_proxy"): no_proxy}) is None


@pytest.mark.parametrize(
    ("no_proxy", "server"),
    [
        ("", "https://10.96.0.1"),
        ("10.0.0.0/8", "https://11.0.0.1"),
        ("10.0.0.0/99", "https://10.96.0.1"),
        ("10.0.0.0/8", "https://[fd00::1]"),
        ("fd00::/8", "https://10.96.0.1"),
        ("::/0", "https://10.96.0.1"),
        ("10.96.0.1:443", "https://10.96.0.1:6443"),
        ("10.96", "https://10.96.0.1"),
        (".96.0.1", "https://10.96.0.1"),
        ("example.com", "https://notexample.com"),
        ("example.com:443", "https://api.example.com:6443"),
        ("api.example.com", "https://example.com"),
        (".", "https://api.example.com"),
        ("10.0.0.0/8", "https://10.example.com"),
    ],
)
def test_everything_else_goes_through_the_proxy(no_proxy: str, server: str) -> None:
    assert proxy_for(server, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) == PROXY


def test_the_servers_scheme_chooses_the_proxy() -> None:
    both = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": "http://plain.corp:8080"}
    assert proxy_for("https://api.example.com", both) == PROXY
    assert proxy_for("http://api.example.com", both) == "http://plain.corp:8080"
    assert proxy_for("https://api.example.com", {"HTTP_PROXY": PROXY}) is None
    assert proxy_for("https://api.example.com", {}) is None


def test_the_lower_case_spelling_counts_where_both_are_set() -> None:
    mixed = {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1", "no_proxy": "a.b", "NO_PROXY": "*"}
    assert proxy_for("https://api.example.com", mixed) == PROXY
    assert proxy_for("https://a.b", mixed) is None


@pytest.mark.parametrize("given", ["proxy.corp:3128", " proxy.corp:3128 "])
def test_a_proxy_without_a_scheme_is_an_http_proxy(given: str) -> None:
    assert proxy_for("https://api.example.com", {"HTTPS_PROXY": given}) == PROXY


@pytest.mark.parametrize("given", ["socks5://me:secret@proxy.corp:1080", "http://"])
def test_what_is_no_http_proxy_is_named(given: str) -> None:
    with pytest.raises(KubeconfigError, match=r"HTTPS_PROXY: \S+ is no HTTP proxy") as refused:
        proxy_for("https://api.example.com", {"HTTPS_PROXY": given})
    assert "secret" not in str(refused.value)
    assert proxy_for("https://api.example.com", {"HTTPS_PROXY": given, "NO_PROXY": "example.com"}) is None


# -- the clients ---------------------------------------------------------------------------------------------


class Listener:
    """Notes the first line that each caller writes, and answers as an API server would."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.called = asyncio.Event()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append((await reader.readline()).decode(errors="replace").strip())
        self.called.set()
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"items":[]}')
        writer.close()


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, int]]:
    listener = Listener()
    server = await asyncio.start_server(listener.meet, "127.0.0.1", 0)
    async with server:
        yield listener, server.sockets[0].getsockname()[1]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def _asked(server: str, proxy: str | None = None) -> None:
    configuration = Configuration()
    configuration.host, configuration.proxy = server, proxy
    client = Client(configuration)
    try:
        assert await client.list(NODE) == []
    finally:
        await client.close()


async def test_the_client_asks_the_proxy(environment: pytest.MonkeyPatch) -> None:
    async with listening() as (proxy, port):
        environment.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        await _asked("http://api.example.com:6443")
        assert proxy.heard == ["GET http://api.example.com:6443/api/v1/nodes?limit=50 HTTP/1.1"]


async def test_the_client_passes_the_proxy_by(environment: pytest.MonkeyPatch) -> None:
    """aiohttp on its own would not: it knows no networks, and proxies this machine's own addresses."""
    async with listening() as (proxy, port), listening() as (server, its_port):
        environment.setenv("http_proxy", f"http://127.0.0.1:{port}")
        environment.setenv("no_proxy", "127.0.0.0/8")
        await _asked(f"http://127.0.0.1:{its_port}")
        assert (len(server.heard), proxy.heard) == (1, [])


async def test_a_kubeconfigs_proxy_comes_before_the_environments(environment: pytest.MonkeyPatch) -> None:
    async with listening() as (proxy, port):
        environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        environment.setenv("NO_PROXY", "*")
        await _asked("http://api.example.com", f"http://127.0.0.1:{port}")
        assert len(proxy.heard) == 1


@pytest.mark.parametrize(("no_proxy", "proxy"), [("192.168.0.0/16", PROXY), ("10.0.0.0/8", None)])
def test_what_watches_takes_the_same_way(
    environment: pytest.MonkeyPatch, no_proxy: str, proxy: str | None
) -> None:
    environment.setenv("HTTPS_PROXY", PROXY)
    environment.setenv("NO_PROXY", no_proxy)
    found = kopf.ConnectionInfo(server="https://10.96.0.1:443")
    environment.setattr(kopf, "login_with_service_account", lambda **_: found)
    info = app._login()
    assert (info.server, info.proxy_url, info.trust_env) == (found.server, proxy, False)


async def test_a_pod_is_never_asked_through_a_proxy(environment: pytest.MonkeyPatch) -> None:
    async with listening() as (proxy, port), listening() as (pod, its_port):
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            environment.setenv(name, f"http://127.0.0.1:{port}")
        client = ControlClient(f"127.0.0.1:{its_port}", "token")
        assert await client.telemetry() is None
        await client.close()
        assert pod.heard
        assert proxy.heard == []


async def test_a_job_fetches_prompts_from_the_pod_itself(environment: pytest.MonkeyPatch) -> None:
    async with listening() as (proxy, port), listening() as (pod, its_port):
        environment.setenv("http_proxy", f"http://127.0.0.1:{port}")
        environment.setattr("helios_server.profile.prompts._TIMEOUT_SECONDS", 1)
        with pytest.raises(HeliosError):
            await asyncio.to_thread(from_pod, f"127.0.0.1:{its_port}", None, "")
        assert pod.heard
        assert proxy.heard == []
