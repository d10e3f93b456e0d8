"""docs/protocol.md says what is so: its example runs, its service config is the client's, its codes are all
there."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import helios_server.rpc.errors  # noqa: F401  the doors' own errors count, too
import pytest
from helios_proto.client import SERVICE_CONFIG
from helios_server.errors import HeliosError

from tests.documentation.blocks import Block
from tests.rpc.pods import Served, generate_request

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


async def test_the_example_streams(documented: list[Block], pod: Served) -> None:
    (example,) = documented
    source = example.text.replace("127.0.0.1:8033", f"127.0.0.1:{pod.ports.port}")
    definitions = source.replace("asyncio.run(main())", "")
    names: dict[str, object] = {}
    exec(compile(definitions, "docs/protocol.md", "exec"), names)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        await names["main"]()  # type: ignore[operator]
    assert "helios-spans" in shown.getvalue()


def test_the_service_config_is_the_clients(documented: list[Block]) -> None:
    assert [json.loads(block.text) for block in documented] == 2 * [SERVICE_CONFIG]


async def test_a_span_has_the_members_that_are_shown(documented: list[Block], pod: Served) -> None:
    """All but those of a head bundle, where there is none."""
    (block,) = documented
    (shown,) = json.loads(block.text)
    answer = pod.client.generate(generate_request())
    await answer.complete()
    (span,) = await answer.spans()
    assert span.keys() | {"exits"} == shown.keys()


def codes(error: type[HeliosError]) -> set[str]:
    return {error.code}.union(*(codes(child) for child in error.__subclasses__()))


def test_every_code_is_in_the_table() -> None:
    table = set(re.findall(r"`([A-Z_]+)`", PAGE))
    assert codes(HeliosError) <= table


@pytest.mark.parametrize("key", ["model", "candidate", "revision", "layer-budget", "depth", "spans"])
def test_every_key_of_the_trailing_metadata_is_named(key: str) -> None:
    assert f"| `helios-{key}` |" in PAGE
