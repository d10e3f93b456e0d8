"""A chat at the native door: the model's own template puts it into words, as at the other one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from helios_proto.v1 import control_pb2
from helios_proto.v1 import generation_pb2 as pb
from transformers import AutoTokenizer

from tests.checkpoints import make_checkpoint
from tests.rpc.openai_door.clients import CHAT, post
from tests.rpc.openai_door.test_chat_template import CHATS, MISTRAL, QWEN, write
from tests.rpc.pods import LAYERS, Served, serving


@pytest.fixture
async def chatting(tmp_path: Path) -> AsyncIterator[tuple[Served, Any]]:
    """A pod whose template heeds every field of a message, and transformers' tokenizer of its model."""
    model = make_checkpoint(tmp_path / "model", layers=LAYERS)
    write(model, QWEN, "config")
    async with serving(model, live_prompts=1) as pod:
        yield pod, AutoTokenizer.from_pretrained(model, local_files_only=True)


async def test_the_prompt_is_what_transformers_makes_of_it(chatting: tuple[Served, Any]) -> None:
    """Every field of a message is in it, and the answer is that of the other door."""
    pod, tokenizer = chatting
    assert {field.name for field in pb.ChatMessage.DESCRIPTOR.fields} == set(CHATS[-1][0])
    for said in CHATS:
        chat = pb.ChatInput(messages=[pb.ChatMessage(**each) for each in said])
        answer = await pod.generate(chat=chat, ignore_eos=True)
        kept = await pod.control.GetPrompts(control_pb2.GetPromptsRequest())
        expected = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        assert list(kept.prompts) == [expected]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        assert answer.usage.prompt_tokens == len(ids)
        other = await post(pod, CHAT, messages=said, ignore_eos=True, max_tokens=8)
        assert other.body["choices"][0]["message"]["content"] == answer.text
        await pod.set_limits(live_prompts=1)  # so that a new set is due


async def refused(pod: Served, *messages: pb.ChatMessage) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pod.generate(chat=pb.ChatInput(messages=messages))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return raised.value.details() or ""


async def test_a_chat_that_is_none_names_its_field(pod: Served) -> None:
    user = pb.ChatMessage(role="user", content="Who?")
    assert await refused(pod) == "chat.messages: is empty; Give at least one message"
    roles = "Use one of system, developer, user, assistant"
    assert await refused(pod, user, pb.ChatMessage(content="x")) == (
        f"chat.messages[1].role: is missing; {roles}"
    )
    tool = pb.ChatMessage(role="tool", content="x")
    assert await refused(pod, tool) == f'chat.messages[0].role: "tool" is no role here; {roles}'


async def test_a_developer_speaks_as_the_system(pod: Served) -> None:
    first, second = [
        await pod.generate(chat=pb.ChatInput(messages=[{"role": role, "content": "Be brief."}]))
        for role in ("developer", "system")
    ]
    assert first == second


async def test_a_template_that_refuses_or_is_missing_is_named_too(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=LAYERS)
    write(model, MISTRAL, "config")
    async with serving(model) as pod:
        words = await refused(pod, pb.ChatMessage(role="assistant", content="x"))
        assert words.startswith(
            "chat.messages: the model's chat template refuses them (roles must alternate);"
        )
    (model / "tokenizer_config.json").unlink()
    async with serving(model) as pod:
        words = await refused(pod, pb.ChatMessage(role="user", content="x"))
        assert words.startswith(
            "chat.messages: the model's tokenizer has no chat template; Have a text continued"
        )
