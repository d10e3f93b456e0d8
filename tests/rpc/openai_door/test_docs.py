"""docs/clients.md says what is so: its examples run as they stand, against a real pod."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import shlex
from pathlib import Path

from tests.documentation.blocks import Block
from tests.rpc.openai_door.clients import CHAT, SAY, post, sdk, send
from tests.rpc.pods import Served

PAGE = (Path(__file__).parents[3] / "docs" / "clients.md").read_text()
ADDRESS = "127.0.0.1:8000"


async def test_the_curl_example_is_answered(documented: list[Block], pod: Served) -> None:
    [example] = documented
    words = shlex.split(example.text.replace("\\\n", " "))
    assert words[0] == "curl"
    assert words[2::2] == ["-H", "-d"]
    header, data = words[3::2]
    assert words[1] == f"http://{ADDRESS}{CHAT}"
    name, _, value = header.partition(": ")
    answer = await send(pod, "POST", CHAT, data.encode(), {name: value})
    assert answer.status == 200
    [choice], told = answer.body["choices"], answer.body["usage"]["completion_tokens"]
    most = json.loads(data)["max_tokens"]
    assert 1 <= told <= most  # it is drawn: it may stop
    assert (choice["finish_reason"] == "length") == (told == most) or choice["finish_reason"] == "stop"


async def test_the_sdks_example_streams(documented: list[Block], pod: Served) -> None:
    [example] = documented
    source = example.text.replace(ADDRESS, f"127.0.0.1:{pod.ports.http_port}")
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        await asyncio.to_thread(exec, compile(source, "docs/clients.md", "exec"), {})
    [told] = re.findall(r"CompletionUsage\(completion_tokens=(\d+)", shown.getvalue())
    assert 1 <= int(told) <= 20  # it is drawn: it may stop


async def test_what_the_helios_object_holds_is_in_the_page(pod: Served) -> None:
    whole = (await post(pod, CHAT)).body["helios"]
    async with sdk(pod) as client:
        asked = {"model": "chat", "messages": SAY, "max_tokens": 3}
        stream = await client.chat.completions.create(stream=True, **asked)  # type: ignore[call-overload]
        chunks = [chunk.helios async for chunk in stream if hasattr(chunk, "helios")]
    section = PAGE.partition("## Fields added to")[2].partition("## Errors")[0]
    fields = {*whole, *chunks[0], *chunks[-1]}
    assert {name for name in fields if f"`{name}`" not in section} == set()
