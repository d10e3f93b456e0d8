"""How the clients come in: certificates, tokens, addresses; and where nothing else is installed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
from helios_client import TLS, Client, errors
from helios_server.rpc.server import Access
from helios_server.rpc.tls import Certificates, TlsFiles

from tests.certificates import Authority
from tests.client.both import KINDS, ask
from tests.client.test_answers import at
from tests.rpc.pods import PROMPT, Served, serving
from tests.rpc.test_tokens import Tokens

ROOT = Path(__file__).parents[2]

LIGHT = """
import json, sys, asyncio
from importlib.abc import MetaPathFinder

# What pip installs for the extra `client`: grpcio with typing_extensions, protobuf; and what is ours of it.
ALLOWED = sys.stdlib_module_names | {"grpc", "google", "typing_extensions", "helios_proto", "helios_client"}

class Nothing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Nothing())
from helios_client import AsyncClient, Client
address = sys.argv[1]
with Client(address) as client:
    text = client.generate("Hello", max_tokens=4, ignore_eos=True).text

async def same():
    async with AsyncClient(address) as client:
        return (await client.generate("Hello", max_tokens=4, ignore_eos=True)).text

assert asyncio.run(same()) == text
print(json.dumps([text, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


async def test_it_runs_where_nothing_else_is_installed(pod: Served) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LIGHT, at(pod)), stdout=asyncio.subprocess.PIPE, cwd=os.sep
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    text, modules = json.loads(out)
    assert text == (await pod.generate("Hello", max_tokens=4)).text
    assert not {"torch", "transformers", "aiohttp", "helios_server", "helios_contract"} & set(modules)


def test_its_requirements_are_two() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [each.partition(">")[0] for each in project["dependencies"]] == ["protobuf", "grpcio"]
    assert project["optional-dependencies"]["client"] == []


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("kind", KINDS)
async def test_certificates_and_a_token(tiny: Path, tmp_path: Path, kind: str) -> None:
    server, clients, tokens = Authority("servers"), Authority("clients"), Tokens(tmp_path / "tokens")
    pair = server.issue(tmp_path / "pod")
    own = clients.issue(tmp_path / "known", "known")
    files = TlsFiles(pair / "tls.crt", pair / "tls.key", clients.write(tmp_path / "clients.crt"))
    known = TLS(server.pem, (own / "tls.crt").read_bytes(), (own / "tls.key").read_bytes())
    access: Access = tokens.access(Certificates(files))
    async with serving(tiny, load=False, access=access) as pod:
        assert pod.server is not None
        await pod.server.load()
        given = {"tls": known, "token": tokens.alice}
        assert (await ask(kind, at(pod), "generate", PROMPT, client=given, max_tokens=2)).text
        assert (await ask(kind, at(pod), "model_info", client=given)).model == "chat"
        for wrong in ("", "nobodys"):
            with pytest.raises(errors.Unauthenticated) as raised:
                await ask(kind, at(pod), "model_info", client=given | {"token": wrong})
            assert (raised.value.code, raised.value.field) == ("UNAUTHENTICATED", "authorization")
        for stranger in (TLS(server.pem), TLS(Authority().pem, known.certificate, known.key), None):
            with pytest.raises(errors.Unavailable) as away:
                await ask(kind, at(pod), "model_info", client=given | {"tls": stranger})
            assert away.value.field == at(pod)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("address", {"address": "::1:8033"}),
        ("token", {"token": "two words"}),
        ("token", {"token": "näh"}),
        ("tls.key", {"tls": TLS(b"", b"certificate")}),
        ("tls.certificate", {"tls": TLS(b"", None, b"key")}),
    ],
)
def test_a_way_in_that_cannot_be_is_refused_at_once(field: str, given: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        Client(**{"address": "127.0.0.1:8033"} | given)  # type: ignore[arg-type]
    assert raised.value.field == field
