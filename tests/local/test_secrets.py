"""Certificates and tokens on one machine: from folders beside the claims, or from the command line, end to
end through the front addresses."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from helios_cli import main as command
from helios_operator.api import parse
from helios_operator.errors import UnsupportedError
from helios_operator.local import secrets
from helios_operator.local.runtime import LocalRuntime
from helios_operator.render.commands import OPEN, Access
from helios_proto.client import GenerationClient

from tests.certificates import Authority, put
from tests.local.world import PATIENCE, ask, deployment, is_ready, options

SERVICE = {"tls": {"secretName": "cert", "clientCASecretName": "ca"}, "auth": {"secretName": "callers"}}


def spec(**service: Any) -> Any:
    return parse.deployment(deployment(service=service))


def test_the_command_line_is_heeded_before_the_spec(tmp_path: Path) -> None:
    given = Access("/c.crt", "/c.key", "/ca.crt", "/tokens")
    assert secrets.access(spec(), tmp_path, OPEN) == OPEN
    assert secrets.access(spec(), tmp_path, given) == given
    assert secrets.access(spec(**SERVICE), tmp_path, given) == given
    assert secrets.access(spec(**SERVICE), tmp_path, OPEN) == Access(
        f"{tmp_path}/cert/tls.crt", f"{tmp_path}/cert/tls.key", f"{tmp_path}/ca/ca.crt", f"{tmp_path}/callers"
    )
    # What the spec asks for beside what is given stays asked for.
    half = secrets.access(spec(**SERVICE), tmp_path, replace(given, tls_client_ca="", auth_tokens=""))
    assert (half.tls_client_ca, half.auth_tokens) == (f"{tmp_path}/ca/ca.crt", f"{tmp_path}/callers")


@pytest.mark.parametrize(
    ("lost", "field"),
    [
        ("cert/tls.crt", "tls.secretName"),
        ("cert/tls.key", "tls.secretName"),
        ("ca/ca.crt", "tls.clientCASecretName"),
        ("callers", "auth.secretName"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, lost: str, field: str) -> None:
    for file in ("cert/tls.crt", "cert/tls.key", "ca/ca.crt", "callers/alice"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    secrets.refuse_missing(spec(**SERVICE), tmp_path, OPEN)
    secrets.refuse_missing(spec(), tmp_path / "nowhere", OPEN)
    gone = tmp_path / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(UnsupportedError, match=rf"spec\.service\.{field}: there is no {gone}; put"):
        secrets.refuse_missing(spec(**SERVICE), tmp_path, OPEN)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--tls-cert", "FILE"], "tls-key"),
        (["--tls-key", "FILE"], "tls-cert"),
        (["--auth-tokens", "/nowhere"], "auth-tokens"),
        (["--tls-client-ca", "/nowhere"], "tls-client-ca"),
    ],
)
def test_up_names_what_is_half_given_or_not_there(
    tmp_path: Path, arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "object.yaml"
    file.write_text(json.dumps(deployment()))
    given = [str(file) if word == "FILE" else word for word in arguments]
    assert command.main(["up", str(file), *given]) != 0
    assert f"{field}: " in capsys.readouterr().err


async def test_a_deployment_with_secrets_is_served_end_to_end(
    state: Path,
    volumes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bytes pass the fronts as they are; the operator goes on seeing and steering its pods."""
    authority, clients = Authority(), Authority("clients")
    here = tmp_path / "volumes"
    shutil.copytree(volumes, here)
    authority.issue(here / "cert")
    (here / "ca").mkdir()
    clients.write(here / "ca/ca.crt")
    own = clients.issue(tmp_path / "own")
    (here / "callers").mkdir()
    put(here / "callers/alice", b"a-secret-of-alice")
    ca = authority.write(tmp_path / "server-ca.crt")
    credentials = grpc.ssl_channel_credentials(
        authority.pem, (own / "tls.key").read_bytes(), (own / "tls.crt").read_bytes()
    )
    async with LocalRuntime([deployment(service=SERVICE)], state, options(here)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        assert runtime.encrypted("chat")
        address = runtime.front_address("chat")
        async with GenerationClient(address, credentials, "a-secret-of-alice") as client:
            assert await ask(client)
        async with GenerationClient(address, credentials, "wrong") as client:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ask(client)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        shown = ["--tls-ca", str(ca), "--tls-cert", str(own / "tls.crt"), "--tls-key", str(own / "tls.key")]
        words = ["generate", "Call me", "--address", address, "--max-tokens", "3", *shown]
        monkeypatch.setenv("HELIOS_TOKEN", "a-secret-of-alice")
        assert await asyncio.to_thread(command.main, words) == 0
        assert await asyncio.to_thread(command.main, [*words, "--token-file", str(ca)]) != 0
        assert "token-file: is no token" in capsys.readouterr().err
        monkeypatch.setenv("HELIOS_TOKEN", "wrong")
        assert await asyncio.to_thread(command.main, words) != 0
        assert "authorization: the token is unknown here" in capsys.readouterr().err
        plain = ["generate", "Call me", "--address", address]
        assert await asyncio.to_thread(command.main, plain) != 0
        assert "and give --tls-ca if it uses TLS" in capsys.readouterr().err
        strange = ["--tls-ca", str(clients.write(tmp_path / "other.crt"))]
        assert await asyncio.to_thread(command.main, [*plain, *strange]) != 0
        assert "and uses TLS, with a certificate of --tls-ca" in capsys.readouterr().err
        tls = ssl.create_default_context(cafile=ca)
        tls.load_cert_chain(own / "tls.crt", own / "tls.key")
        headers = {"Authorization": "Bearer a-secret-of-alice"}
        url = f"https://{runtime.http_address('chat')}/v1/models"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=tls, headers=headers) as answer:
            assert (answer.status, (await answer.json())["data"][0]["id"]) == (200, "chat")
    said = "".join(file.read_text() for file in state.rglob("log"))
    assert "a-secret-of-alice" not in said


async def test_a_missing_secret_is_said_before_anything_is_looked_at(tmp_path: Path) -> None:
    """Or a user waits for what will not be; no Job is started for it."""
    objects = [deployment(service={"auth": {"secretName": "callers"}})]
    async with LocalRuntime(objects, tmp_path / "state", options(tmp_path)) as runtime:
        await runtime.wait_for(lambda up: up.hopeless("chat"), PATIENCE)
        assert "spec.service.auth.secretName: there is no" in runtime.hopeless("chat")[0]
        assert not [each for each in runtime.events("chat") if each.reason == "ProfilingStarted"]
