"""Both clients against a real pod: what they tell is what the engine made, field by field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helios_client import Answer, ModelInfo, Span, errors
from helios_proto.v1 import generation_pb2 as pb

from tests.client.both import KINDS, ask, read
from tests.rpc.openai_door.clients import CHAT, post
from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, generate_request, serving

ASKED: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True, "logprobs": True}
KEYS = {
    "from_token": "fromToken",
    "candidate": "candidate",
    "model_uri": "modelUri",
    "revision": "revision",
    "backbone": "backbone",
    "exits": "exits",
    "depth": "depth",
    "weight_dtype": "weightDtype",
    "kv_cache_dtype": "kvCacheDtype",
}
"""Of a span: ours, and as it is sent."""
SAID = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Who is Ahab?"}]


def at(pod: Served) -> str:
    return f"127.0.0.1:{pod.ports.port}"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_is_what_the_messages_say(pod: Served, kind: str) -> None:
    call = pod.client.generate(generate_request(**ASKED, seed=1, temperature=5.0, stop=["never"]))
    messages = [message async for message in call]
    options = ASKED | {"seed": 1, "temperature": 5.0, "stop": "never"}
    chunks, answer = await read(kind, at(pod), "stream", PROMPT, **options)
    assert [chunk.token_ids for chunk in chunks] == [tuple(m.chunk.token_ids) for m in messages[:-1]]
    for chunk, message in zip(chunks, messages, strict=False):
        said = dataclasses.asdict(chunk)
        assert said == {name: _plain(getattr(message.chunk, name)) for name in said}
        assert said.keys() == {field.name for field in pb.Chunk.DESCRIPTOR.fields}
    assert "".join(chunk.text for chunk in chunks) == answer.text
    _same(answer, messages[-1].complete)
    assert answer.metadata == await call.trailing()
    assert (answer.finish_reason, answer.spans[0].depth, answer.spans[0].candidate) == (
        "length",
        LAYERS,
        "tiny",
    )
    assert await ask(kind, at(pod), "generate", PROMPT, **options) == answer


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int) else tuple(value)


def _same(answer: Answer, said: pb.Complete) -> None:
    """Every field of the message is one of the answer."""
    told = dataclasses.asdict(answer)
    assert answer.text == said.text
    assert answer.token_ids == tuple(said.output_ids)
    nested = {"text", "output_ids", "finish_reason", "usage", "exit_stats"}
    for message in (said, said.usage, said.exit_stats):
        for name in {field.name for field in message.DESCRIPTOR.fields} - nested:
            assert told[name] == getattr(message, name)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_chat_is_what_the_other_door_answers(pod: Served, kind: str) -> None:
    theirs = (await post(pod, CHAT, messages=SAID, ignore_eos=True, max_tokens=8)).body
    chunks, answer = await read(kind, at(pod), "stream_chat", SAID, **ASKED)
    assert answer.text == theirs["choices"][0]["message"]["content"]
    assert answer.prompt_tokens == theirs["usage"]["prompt_tokens"]
    assert [chunk.confidences[0] for chunk in chunks] == pytest.approx(theirs["helios"]["confidences"])
    assert await ask(kind, at(pod), "chat", SAID, **ASKED) == answer
    named = [SAID[0], SAID[1] | {"name": "Ishmael"}]
    assert (await ask(kind, at(pod), "chat", named, **ASKED)).prompt_tokens == answer.prompt_tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_what_serves_is_told_field_by_field(pod: Served, kind: str) -> None:
    info = await ask(kind, at(pod), "model_info")
    said = await pod.info()
    assert isinstance(info, ModelInfo)
    fields = {field.name for field in pb.GetModelInfoResponse.DESCRIPTOR.fields}
    assert dataclasses.asdict(info) == {name: _plain(getattr(said, name)) for name in fields}
    assert (info.exit_layers, info.total_layers) == (EXITS, LAYERS)


async def test_the_spans_are_what_made_the_answer(tiny: Path, heads: Path) -> None:
    async with serving(tiny, weight_dtype="int8", exits_uri=f"file://{heads}") as pod:
        shallow = await ask("aio", at(pod), "generate", PROMPT, depth=EXITS[0], max_tokens=4)
        assert (shallow.mean_layers, shallow.layer_budget) == (EXITS[0], LAYERS)
        [span] = shallow.spans
        assert (span.depth, span.weight_dtype, span.kv_cache_dtype) == (EXITS[0], "int8", "auto")
        assert (shallow.weight_dtype, shallow.kv_cache_dtype) == ("int8", "auto")
        [told] = json.loads(shallow.metadata["helios-spans"])
        assert [told.get(key, "auto") for key in KEYS.values()] == [getattr(span, name) for name in KEYS]
        assert told.keys() <= set(KEYS.values())
    assert {field.name for field in dataclasses.fields(Span)} == KEYS.keys()


def test_spans_that_were_too_many_are_none_and_the_metadata_says_so() -> None:
    answer = Answer.of(pb.Complete(), {"helios-spans-omitted": "70", "date": "today"})
    assert (answer.spans, answer.metadata) == ((), {"helios-spans-omitted": "70"})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_typed_and_names_the_field(pod: Served, kind: str) -> None:
    for kind_of_error, field, call, given, options in (
        (errors.InvalidArgument, "sampling_params.top_p", "generate", PROMPT, {"top_p": 7}),
        (errors.InvalidArgument, "text", "generate", "", {}),
        (errors.InvalidArgument, "tokenized.input_ids", "generate", [], {}),
        (errors.InvalidArgument, "exit_policy.layer_budget", "generate", PROMPT, {"depth": 3}),
        (errors.InvalidArgument, "chat.messages", "chat", [], {}),
        (errors.InvalidArgument, "chat.messages[0].role", "chat", [{"role": "tool", "content": "x"}], {}),
        (errors.InvalidArgument, "chat.messages[1].role", "chat", [*SAID[:1], {"content": "x"}], {}),
        (errors.NotFound, "model", "generate", PROMPT, {"model": "other"}),
        (errors.DeadlineExceeded, "timeout", "generate", PROMPT, {"timeout": 1e-6}),
        (errors.InvalidArgument, "request_id", "abort", "", {}),
    ):
        with pytest.raises(kind_of_error) as raised:
            await ask(kind, at(pod), call, given, **options)
        assert raised.value.field == field
    assert raised.value.code == "INVALID_ARGUMENT"
    with pytest.raises(errors.NotFound) as other:
        await ask(kind, at(pod), "generate", PROMPT, model="other")
    assert other.value.metadata["helios-candidate"] == "tiny"
