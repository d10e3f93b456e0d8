"""docs/python-client.md says what is so: each of its examples runs as it stands, against a real pod."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from helios_client import calls, errors
from helios_client.requests import Options
from helios_server.rpc.tls import Certificates, TlsFiles

from tests.certificates import Authority
from tests.client.test_answers import at
from tests.documentation.blocks import Block
from tests.rpc.pods import Served, serving
from tests.rpc.test_tokens import Tokens

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()
ADDRESS = "127.0.0.1:8033"


async def shown(pod: Served, example: Block, address: str = ADDRESS) -> str:
    """What an example prints."""
    assert address in example.text
    code = compile(example.text.replace(address, at(pod)), example.page, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as text:
        await asyncio.to_thread(exec, code, {})
    return text.getvalue()


async def test_the_examples_run(documented: list[Block], pod: Served) -> None:
    whole, stream, with_asyncio, errors = documented
    assert re.search(r"6.0 of 6 layers, \d+% sure\n0 tiny 6 auto\n", await shown(pod, whole))
    assert re.search(r"( \[6: \d\.\d\d\] .*){2}\d+\n", await shown(pod, stream), re.DOTALL)
    assert await shown(pod, with_asyncio)
    assert "sampling_params.top_p | 7.0 is out of range | " in await shown(pod, errors)


async def test_replicas_are_asked_alike(documented: list[Block], pod: Served) -> None:
    (example,) = documented
    assert (await shown(pod, example, "chat-replicas.team-a.svc:8033")).strip()


async def test_the_way_in_leads_in(
    documented: list[Block], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = documented
    servers, clients, tokens = Authority("servers"), Authority("clients"), Tokens(tmp_path / "tokens")
    pair = servers.issue(tmp_path / "pod")
    servers.write(tmp_path / "ca.crt")
    clients.issue(tmp_path / "own", "own")
    shutil.copy(tokens.folder / "alice", tmp_path / "token")
    files = TlsFiles(pair / "tls.crt", pair / "tls.key", clients.write(tmp_path / "clients.crt"))
    monkeypatch.chdir(tmp_path)
    async with serving(tiny, access=tokens.access(Certificates(files))) as pod:
        assert await shown(pod, example) == "chat\n"


def test_every_call_option_and_exception_is_named() -> None:
    names = {name for name in vars(calls.Calls) if not name.startswith("_")}
    kinds = {kind.__name__ for kind in errors.HeliosError.__subclasses__()}
    for name in names | kinds | Options.__annotations__.keys():
        assert re.search(rf"`{name}[`(]", PAGE), name
