"""TLS and mTLS at both doors, against real clients: who is refused, what is named, rotation under load."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from cryptography import x509
from helios_proto.client import CHANNEL_OPTIONS
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc as rpc
from helios_server import serve
from helios_server.errors import InvalidRequest
from helios_server.rpc.server import Access
from helios_server.rpc.tls import Certificates, TlsFiles

from tests.certificates import Authority, put
from tests.rpc.pods import Served, eventually, generate_request, serving

pytestmark = pytest.mark.usefixtures("quick_looks")


@dataclass
class Place:
    """The authorities and files of a pod that speaks TLS."""

    folder: Path
    server: Authority
    clients: Authority

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.folder / "pod/tls.crt", self.folder / "pod/tls.key")

    @property
    def mutual(self) -> TlsFiles:
        return TlsFiles(self.files.certificate, self.files.key, self.folder / "clients.crt")

    def client(self, name: str) -> tuple[bytes, bytes]:
        """Key and certificate of a client, as gRPC takes them."""
        folder = self.folder / name
        return (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, Authority("servers"), Authority("clients"))
    place.server.issue(tmp_path / "pod")
    place.clients.write(tmp_path / "clients.crt")
    place.clients.issue(tmp_path / "known", "known")
    Authority("others").issue(tmp_path / "stranger", "stranger")
    return place


def channel(pod: Served, roots: bytes, own: tuple[bytes, bytes] | None = None) -> grpc.aio.Channel:
    """A connection of its own."""
    key, certificate = own or (None, None)
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    credentials = grpc.ssl_channel_credentials(roots, key, certificate)
    return grpc.aio.secure_channel(f"127.0.0.1:{pod.ports.port}", credentials, options)


def context(roots: bytes, own: Path | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=roots.decode())
    if own:
        made.load_cert_chain(own / "tls.crt", own / "tls.key")
    return made


async def over_http(pod: Served, tls: ssl.SSLContext, url: str = "https://127.0.0.1") -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}:{pod.ports.http_port}/v1/models", ssl=tls) as answer,
    ):
        await answer.read()
        return answer.status


async def complete(connection: grpc.aio.Channel, **asked: Any) -> pb.Complete:
    *_, last = [
        message async for message in rpc.GenerationStub(connection).Generate(generate_request(**asked))
    ]
    return last.complete


async def refused(connection: grpc.aio.Channel) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await complete(connection)
    return error.value.code()


@asynccontextmanager
async def encrypted(tiny: Path, files: TlsFiles, **changes: Any) -> AsyncIterator[Served]:
    async with serving(tiny, access=Access(Certificates(files)), **changes) as pod:
        yield pod


async def test_both_doors_speak_tls_and_probes_stay_plain(tiny: Path, place: Place) -> None:
    async with encrypted(tiny, place.files) as pod:
        async with channel(pod, place.server.pem) as connection:
            assert len((await complete(connection, text="a" * 2000)).output_ids) == 8
        assert await over_http(pod, context(place.server.pem)) == 200
        assert await over_http(pod, context(place.server.pem), "https://localhost") == 200
        assert (await pod.page("/readyz"))[0] == 200
        assert (await pod.telemetry()).limits.candidate == "tiny"
        async with channel(pod, Authority().pem) as connection:
            assert await refused(connection) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(aiohttp.ClientSSLError):
            await over_http(pod, context(Authority().pem))
        at, options = f"127.0.0.1:{pod.ports.port}", [("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(at, options) as connection:
            assert await refused(connection) is grpc.StatusCode.UNAVAILABLE


async def test_a_client_without_the_right_certificate_reaches_nothing(tiny: Path, place: Place) -> None:
    async with encrypted(tiny, place.mutual) as pod:
        async with channel(pod, place.server.pem, place.client("known")) as connection:
            assert (await complete(connection)).usage.completion_tokens == 8
        assert await over_http(pod, context(place.server.pem, place.folder / "known")) == 200
        for own in (None, place.client("stranger")):
            async with channel(pod, place.server.pem, own) as connection:
                assert await refused(connection) is grpc.StatusCode.UNAVAILABLE
        for folder in (None, place.folder / "stranger"):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await over_http(pod, context(place.server.pem, folder))
        assert (
            'helios_request_success_total{finished_reason="length",model_name="chat"} 1.0'
            in ((await pod.page("/metrics"))[1])
        )


async def test_nobody_comes_back_by_an_old_session(tiny: Path, place: Place) -> None:
    """Once the CA of clients is another, a session that was begun under the old one is worth nothing."""
    async with encrypted(tiny, place.mutual) as pod:
        tls = context(place.server.pem, place.folder / "known")
        assert await over_http(pod, tls) == 200
        Authority("new").write(place.folder / "clients.crt")

        async def turned_away() -> bool:
            try:
                return await over_http(pod, tls) != 200
            except (aiohttp.ClientError, ssl.SSLError):
                return True

        await eventually(turned_away)


async def test_certificates_are_rotated_under_load_and_nothing_is_lost(tiny: Path, place: Place) -> None:
    """Streams that run, calls on old connections, and calls that each make a new one, over both doors;
    clients trust the old CA and the new one, as during any rotation."""
    new = Authority("new")
    both = place.server.pem + new.pem
    outcomes: Counter[str] = Counter()
    done = asyncio.Event()

    async def again_and_again(name: str, call: Callable[[], Any]) -> None:
        while not done.is_set():
            try:
                await call()
                outcomes[name] += 1
            except Exception as error:
                outcomes[f"{name}: {error!r}"] += 1

    async with encrypted(tiny, place.files, max_queue_size=256) as pod:

        async def newly() -> None:
            async with channel(pod, both) as connection:
                await complete(connection, max_tokens=2)

        async def rotated() -> bool:
            await asyncio.sleep(0)
            return (await served_by(pod, both)) == new_serial

        async with channel(pod, both) as kept:
            stream = asyncio.create_task(complete(kept, max_tokens=400))
            work = [
                asyncio.create_task(again_and_again("old", lambda: complete(kept, max_tokens=2))),
                asyncio.create_task(again_and_again("new", newly)),
                asyncio.create_task(again_and_again("http", lambda: over_http(pod, context(both)))),
            ]
            for _ in range(2):
                before = await served_by(pod, both)
                new.issue(place.folder / "pod")
                new_serial = serial_of(place.files.certificate)
                assert new_serial != before
                await eventually(rotated)
            seen = outcomes.copy()
            await eventually(lambda: more_than(seen, outcomes))
            done.set()
            await asyncio.gather(*work)
            assert len((await stream).output_ids) == 400
        _, metrics = await pod.page("/metrics")
    assert set(outcomes) == {"old", "new", "http"}
    assert 'helios_secret_reloads_total{model_name="chat",result="applied",what="certificate"} 2.0' in metrics


async def more_than(before: Counter[str], now: Counter[str]) -> bool:
    return all(now[name] > before[name] + 2 for name in ("old", "new", "http"))


async def served_by(pod: Served, roots: bytes) -> int:
    """The serial number of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port, ssl=context(roots))
    serial = int(writer.get_extra_info("peercert")["serialNumber"], 16)
    writer.close()
    return serial


def serial_of(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def missing(place: Place) -> None:
    place.files.certificate.unlink()


def no_certificate(place: Place) -> None:
    put(place.files.certificate, b"nothing")


def no_key(place: Place) -> None:
    put(place.files.key, b"nothing")


def another_key(place: Place) -> None:
    put(place.files.key, place.client("known")[0])


def encrypted_key(place: Place) -> None:
    place.server.issue(place.folder / "pod", passphrase=b"secret")


def expired(place: Place) -> None:
    place.server.issue(place.folder / "pod", days=-1)


def folder_for_a_key(place: Place) -> None:
    place.files.key.unlink()
    place.files.key.mkdir()


def empty_ca(place: Place) -> None:
    put(place.folder / "clients.crt", b"")


def no_revocations(place: Place) -> None:
    """Behind a certificate, what says to be a list of revoked ones."""
    path = place.mutual.client_ca
    assert path is not None
    path.write_text(f"{path.read_text()}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")


BROKEN: dict[Callable[[Place], None], str] = {
    missing: r"tls-cert: \S+tls\.crt cannot be read \(No such file",
    no_certificate: r"tls-cert: \S+tls\.crt holds no certificate",
    no_key: r"tls-key: \S+tls\.key holds no private key",
    another_key: r"tls-key: \S+tls\.key is not the key of \S+tls\.crt",
    encrypted_key: r"tls-key: \S+tls\.key is encrypted; Give the key without",
    expired: r"tls-cert: \S+tls\.crt expired at 20",
    folder_for_a_key: r"tls-key: \S+tls\.key cannot be read \(Is a directory",
    empty_ca: r"tls-client-ca: \S+clients\.crt holds no certificate",
    no_revocations: r"tls-client-ca: \S+clients\.crt cannot be used",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_files_that_cannot_be_used_are_named(
    place: Place, breaks: Callable[[Place], None], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start by an error; at a rotation in the log, and the old ones stay."""
    certificates = Certificates(place.mutual)
    before = certificates.expires
    breaks(place)
    with pytest.raises(InvalidRequest, match=BROKEN[breaks]):
        Certificates(place.mutual)
    assert certificates.look() is None  # not before it has been seen twice
    assert certificates.look() is False
    assert certificates.expires == before
    assert re.search("stays.*" + BROKEN[breaks], caplog.text)
    assert certificates.look() is None


async def test_a_broken_rotation_keeps_the_old_pair_and_a_later_one_heals(
    tiny: Path, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with encrypted(tiny, place.files) as pod:
        another_key(place)

        async def told() -> bool:
            _, metrics = await pod.page("/metrics")
            return 'secret_reloads_total{model_name="chat",result="kept",what="certificate"} 1.0' in metrics

        await eventually(told)
        assert await over_http(pod, context(place.server.pem)) == 200
        async with channel(pod, place.server.pem) as connection:
            await complete(connection)
        place.server.issue(place.folder / "pod", days=30)
        wanted = serial_of(place.files.certificate)

        async def healed() -> bool:
            return await served_by(pod, place.server.pem) == wanted

        await eventually(healed)
        _, metrics = await pod.page("/metrics")
    assert "helios_tls_certificate_expiry_timestamp_seconds" in metrics
    assert "PRIVATE KEY" not in caplog.text + metrics


@pytest.mark.parametrize("given", ["--tls-cert", "--tls-key", "--tls-client-ca"])
def test_half_of_a_pair_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^tls-(cert|key): is missing, and --tls-"):
        serve.parse(["--model", "file:///m", given, "f"])
