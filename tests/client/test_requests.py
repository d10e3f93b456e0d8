"""What a caller asks reaches the message, field by field; what cannot be sent is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from helios_client import InvalidArgument
from helios_client.requests import Options, chatting, continuing
from helios_proto.v1 import generation_pb2 as pb

GIVEN: dict[str, Any] = {
    "max_tokens": 5,
    "min_tokens": 2,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.75,
    "min_p": 0.25,
    "repetition_penalty": 1.5,
    "stop": ["a", "b"],
    "stop_token_ids": [1, 2],
    "ignore_eos": True,
    "seed": 2**64 - 1,
    "logprobs": True,
    "depth": 4,
    "model": "chat",
    "request_id": "mine",
    "cache_salt": "salt",
}


def test_every_option_reaches_the_field_of_its_name() -> None:
    asked = continuing("text", Options(**GIVEN), stream=True)  # type: ignore[typeddict-item]
    sampling = {field.name for field in pb.SamplingParams.DESCRIPTOR.fields}
    own = {"model", "request_id", "cache_salt"}
    assert set(GIVEN) == Options.__annotations__.keys() == sampling | own | {"depth"}
    fields = {field.name for field in pb.GenerateRequest.DESCRIPTOR.fields}
    assert fields == own | {"text", "tokenized", "chat", "sampling_params", "exit_policy", "stream"}
    for name in sampling:
        value = getattr(asked.sampling_params, name)
        assert (list(value) if name.startswith("stop") else value) == GIVEN[name]
    assert {name: getattr(asked, name) for name in own} == {name: GIVEN[name] for name in own}
    assert (asked.exit_policy.layer_budget, asked.text, asked.stream) == (4, "text", True)


def test_what_is_left_out_or_none_is_the_servers_default() -> None:
    nothing = Options(**dict.fromkeys(GIVEN))  # type: ignore[typeddict-item]
    for options in (Options(), nothing):
        asked = continuing("text", options, stream=False)
        assert asked == pb.GenerateRequest(text="text", stream=False)
    zero = continuing("text", {"temperature": 0.0, "seed": 0}, stream=False).sampling_params
    assert zero.HasField("temperature")
    assert zero.HasField("seed")


def test_a_prompt_is_a_text_or_ids_and_a_chat_its_messages() -> None:
    assert list(continuing([5, 6], {}, stream=True).tokenized.input_ids) == [5, 6]
    for empty, kind in (("", "text"), ((), "tokenized")):
        assert continuing(empty, {}, stream=True).WhichOneof("input") == kind  # the server says what is wrong
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?", "name": "Ishmael"},
    ]
    asked = chatting(said, {"max_tokens": 2}, stream=True)
    assert asked.chat == pb.ChatInput(messages=[pb.ChatMessage(**each) for each in said])
    assert asked.sampling_params.max_tokens == 2
    assert chatting([], {}, stream=True).WhichOneof("input") == "chat"


def test_one_stop_string_is_one_stop_string() -> None:
    assert list(continuing("", {"stop": "end"}, stream=True).sampling_params.stop) == ["end"]


@pytest.mark.parametrize(
    ("field", "prompt", "options"),
    [
        ("sampling_params.max_tokens", "", {"max_tokens": -1}),
        ("sampling_params.max_tokens", "", {"max_tokens": 2**32}),
        ("sampling_params.max_tokens", "", {"max_tokens": 1.5}),
        ("sampling_params.max_tokens", "", {"max_tokens": [3]}),
        ("sampling_params.top_p", "", {"top_p": "much"}),
        ("sampling_params.seed", "", {"seed": -1}),
        ("sampling_params.ignore_eos", "", {"ignore_eos": "yes"}),
        ("sampling_params.stop", "", {"stop": 5}),
        ("sampling_params.stop", "", {"stop": ["a", 5]}),
        ("sampling_params.stop_token_ids", "", {"stop_token_ids": ["a"]}),
        ("sampling_params.stop_token_ids", "", {"stop_token_ids": "ab"}),
        ("exit_policy.layer_budget", "", {"depth": -2}),
        ("model", "", {"model": 5}),
        ("cache_salt", "", {"cache_salt": ["a"]}),
        ("text", "\ud800", {}),
        ("tokenized.input_ids", [1, -1], {}),
        ("tokenized.input_ids", ["a"], {}),
        ("tokenized.input_ids", None, {}),
    ],
)
def test_what_no_message_can_carry_names_the_field(field: str, prompt: Any, options: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        continuing(prompt, options, stream=True)
    assert (raised.value.field, raised.value.code) == (field, "INVALID_ARGUMENT")
    assert "cannot be sent" in raised.value.problem
    assert raised.value.fix.startswith("Give ")


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ("chat.messages[0]", "hello"),
        ("chat.messages[0]", {"role": "user", "content": "hello"}),
        ("chat.messages[1]", [{"role": "user", "content": "hello"}, "and"]),
        ("chat.messages[0].content", [{"role": "user", "content": ["hello"]}]),
        ("chat.messages[0].content", [{"role": "user", "content": None}]),
        ("chat.messages[0].content", [{"role": "user"}]),
        ("chat.messages", None),
        ("chat.messages", 5),
        ("chat.messages[0].role", [{"role": 5, "content": "hello"}]),
        ("chat.messages[0].tool_calls", [{"role": "user", "content": "hello", "tool_calls": []}]),
    ],
)
def test_what_is_no_message_names_its_place(field: str, messages: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        chatting(messages, {}, stream=True)
    assert raised.value.field == field


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match=r"there is no option max_token; there are max_tokens, "):
        continuing("", {"max_token": 5}, stream=True)  # type: ignore[typeddict-unknown-key]
