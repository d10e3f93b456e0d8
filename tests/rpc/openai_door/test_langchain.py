"""LangChain's OpenAI chat model, unchanged, before the real model.

It brings thirty packages that nothing else here needs, so that it is installed by itself into the user's
cache, once, and runs in a process of its own (`langchain_side.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helios_server.models.cache import cache_root, ensure_directory

from tests.rpc.openai_door.clients import CHAT, post, url
from tests.rpc.openai_door.real import EXITS, LAYERS, real_pod
from tests.rpc.pods import Served
from tests.sizes import LONG

PACKAGE = "langchain-openai==1.7.3"
ROOT = Path(__file__).parents[3]
SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who is Ahab?"},
    {"role": "assistant", "content": "A captain."},
    {"role": "user", "content": "Tell me all of him."},
]
"""As the other side's."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not LONG, reason="`make test-long` runs it: 110 MB are installed, once"),
]


def _install(target: Path) -> None:
    """Of releases that we are tested with, where both need the same."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*command, *constraints, "--target", str(target), PACKAGE], check=True)


async def langchain(pod: Served, **asked: dict[str, Any]) -> dict[str, Any]:
    """What functions of the other side return."""
    folder = ensure_directory(cache_root() / "tools" / "langchain", _install, f"{sys.version} {PACKAGE}")
    given = {what: {"url": f"{url(pod)}/v1", **arguments} for what, arguments in asked.items()}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("langchain_side.py")), json.dumps(given)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(folder), "LANGSMITH_TRACING": "false"},
    )
    out, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    answers: dict[str, Any] = json.loads(out)
    return answers


async def test_what_it_reads_is_what_the_door_says() -> None:
    async with real_pod() as pod:
        body = (await post(pod, CHAT, messages=SAID, max_tokens=8, logprobs=True)).body
        [choice], usage = body["choices"], body["usage"]
        text = choice["message"]["content"]
        shallow = (await post(pod, CHAT, messages=SAID, max_tokens=8, helios={"depth": EXITS[0]})).body
        found = await langchain(
            pod,
            whole={},
            streamed={},
            awaited={},
            chained={},
            stopped={"stop": text[3:6]},
            early={"depth": EXITS[0]},
            refused={},
        )
    whole, streamed = found["whole"], found["streamed"]
    assert (whole["text"], whole["response"]["model_name"]) == (text, "chat")
    assert whole["response"]["finish_reason"] == choice["finish_reason"] == "length"
    assert whole["response"]["system_fingerprint"] == body["system_fingerprint"]
    assert whole["response"]["id"].startswith("chatcmpl-")
    told = whole["response"]["logprobs"]["content"]
    assert [each["token"] for each in told] == [each["token"] for each in choice["logprobs"]["content"]]
    assert [each["logprob"] for each in told] == pytest.approx(
        [each["logprob"] for each in choice["logprobs"]["content"]]
    )
    for answer in (whole, streamed):
        assert answer["usage"]["input_tokens"] == usage["prompt_tokens"]
        assert answer["usage"]["output_tokens"] == usage["completion_tokens"]
        assert answer["usage"]["total_tokens"] == usage["total_tokens"]
    assert (streamed["text"], streamed["response"]["finish_reason"]) == (text, "length")
    assert streamed["response"]["model_name"] == "chat"
    assert streamed["chunks"] > 3
    assert found["awaited"] == [text, text]
    assert len(set(found["chained"])) == 2
    assert found["stopped"]["text"] == text[: text.index(text[3:6])]
    assert found["stopped"]["response"]["finish_reason"] == "stop"
    assert found["early"]["text"] == shallow["choices"][0]["message"]["content"]
    assert shallow["helios"]["depth"] == EXITS[0] < LAYERS
    wrong = {"model": "NotFoundError", "top_p": "BadRequestError", "tools": "BadRequestError"}
    assert found["refused"].keys() == wrong.keys()
    for field, (kinds, param) in found["refused"].items():
        assert param == field
        assert wrong[field] in kinds  # some are of a kind of its own below it
