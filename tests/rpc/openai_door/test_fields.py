"""Every field that a client can send does something, or is taken at a neutral value, or refuses the request
by its name: the tables of docs/clients.md, and the SDK's own list of fields, are walked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helios_server.errors import InvalidRequest
from helios_server.rpc.openai import fields
from helios_server.rpc.openai.errors import encoded, told
from helios_server.rpc.openai.requests import ChatRequest, TextRequest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from tests.rpc.openai_door.clients import BODIES, CHAT, TEXT, post
from tests.rpc.pods import EXITS, Served

PAGE = (Path(__file__).parents[3] / "docs" / "clients.md").read_text()
ANY = {"any string": ["", "x"], "`true` or `false`": [True, False], "null alone": []}
READ: dict[str, Any] = {CHAT: ChatRequest, TEXT: TextRequest}
HEEDED = {CHAT: fields.CHAT, TEXT: fields.TEXT}
NEUTRAL = {CHAT: fields.CHAT_NEUTRAL, TEXT: fields.TEXT_NEUTRAL}


def table(heading: str) -> dict[str, tuple[list[Any], Any]]:
    """Field -> its neutral values, and one that is refused."""
    text = PAGE.partition(f"\n{heading}:\n")[2].lstrip("\n").partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in text.splitlines()[2:]]
    return {name.strip("`"): (_values(neutral), json.loads(bad.strip("`"))) for name, neutral, bad in rows}


def _values(cell: str) -> list[Any]:
    return ANY[cell] if cell in ANY else [json.loads(value) for value in re.findall(r"`([^`]+)`", cell)]


TABLES = {CHAT: table("Of chats"), TEXT: table("Of completions")}
ROWS = [(path, name, *row) for path, rows in TABLES.items() for name, row in rows.items()]


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_page_lists_what_is_taken_at_a_neutral_value(path: str) -> None:
    assert set(TABLES[path]) == set(NEUTRAL[path])
    documented = PAGE.partition("## Fields that are used")[2].partition("## Fields that are accepted")[0]
    assert all(f"`{name}`" in documented or f"`{name}." in documented for name in HEEDED[path])


@pytest.mark.parametrize(
    ("path", "params"),
    [(CHAT, chat_params.CompletionCreateParamsBase), (TEXT, text_params.CompletionCreateParamsBase)],
)
def test_there_is_no_field_of_the_sdk_that_has_no_place(path: str, params: Any) -> None:
    named = {*params.__annotations__, "stream"}
    assert named == {name for name in named if name in HEEDED[path] or name in NEUTRAL[path]}
    assert not HEEDED[path] & set(NEUTRAL[path])


@pytest.mark.parametrize(("path", "name", "neutral", "refused"), ROWS)
def test_neutral_values_are_taken_and_others_refused_by_name(
    path: str, name: str, neutral: list[Any], refused: Any
) -> None:
    for value in [*neutral, None]:
        READ[path](BODIES[path] | {name: value})
    with pytest.raises(InvalidRequest) as raised:
        READ[path](BODIES[path] | {name: refused})
    assert raised.value.field == name
    assert "asks for something that this server does not do" in raised.value.problem


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_all_neutral_values_at_once_change_nothing(pod: Served, path: str) -> None:
    plain = await post(pod, path)
    neutral = {name: values[0] for name, (values, _) in TABLES[path].items() if values}
    nulls = dict.fromkeys(set(HEEDED[path] | NEUTRAL[path].keys()) - BODIES[path].keys())
    told = await post(pod, path, **nulls | neutral)
    assert (told.status, told.body["choices"]) == (200, plain.body["choices"])


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_a_field_that_nobody_knows_is_refused(pod: Served, path: str) -> None:
    answer = await post(pod, path, guided_json={"type": "object"})
    assert (answer.status, answer.error["param"]) == (400, "guided_json")
    assert "known are" in answer.error["message"]
    assert (await post(pod, path, guided_json=None)).status == 200  # asks for nothing


HOT = {"temperature": 20.0, "seed": 1, "max_tokens": 40, "ignore_eos": True}
DIFFERENT: dict[str, tuple[dict[str, Any], Any]] = {
    "max_tokens": ({}, 5),
    "min_tokens": ({"stop_token_ids": list(range(320))}, 2),
    "temperature": ({"seed": 1}, 20),
    "top_p": (HOT, 0.001),
    "top_k": (HOT, 1),
    "min_p": (HOT, 1),
    "repetition_penalty": ({"max_tokens": 30}, 50),
    "seed": (HOT, -1),
    "stop_token_ids": ({}, list(range(320))),
    "ignore_eos": ({"temperature": 1000, "seed": 15, "max_tokens": 40}, True),
    "helios": ({"max_tokens": 30}, {"depth": EXITS[0]}),
}
OTHERWISE = {
    "model",
    "messages",
    "prompt",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "max_completion_tokens",
    "cache_salt",
}
"""Shown by tests of their own."""


def test_every_field_that_is_heeded_has_a_test() -> None:
    assert {*DIFFERENT, *OTHERWISE} == fields.CHAT | fields.TEXT


@pytest.mark.parametrize("name", sorted(DIFFERENT))
async def test_a_field_changes_the_answer(pod: Served, name: str) -> None:
    others, value = DIFFERENT[name]
    before = await post(pod, TEXT, **others)
    after = await post(pod, TEXT, **others | {name: value})
    assert after.status == 200
    assert after.body["choices"] != before.body["choices"]


async def test_the_two_names_of_the_most_tokens(pod: Served) -> None:
    body = {"max_tokens": None, "max_completion_tokens": 5}
    assert (await post(pod, CHAT, **body)).body["usage"]["completion_tokens"] == 5
    assert (await post(pod, CHAT, max_tokens=5, max_completion_tokens=5)).status == 200
    both = await post(pod, CHAT, max_tokens=5, max_completion_tokens=6)
    assert (both.status, both.error["param"]) == (400, "max_tokens")


async def test_the_defaults_are_openais(pod: Served) -> None:
    text = await post(pod, TEXT, max_tokens=None, ignore_eos=True)
    assert text.body["usage"]["completion_tokens"] == 16
    chats = [await post(pod, CHAT, temperature=None, max_tokens=12) for _ in range(3)]
    assert len({chat.body["choices"][0]["message"]["content"] for chat in chats}) > 1  # temperature 1
    assert (await post(pod, CHAT, model=None)).body["model"] == "chat"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens"),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 10**30}, "max_completion_tokens"),
    (TEXT, {"max_tokens": 99999}, "max_tokens"),
    (TEXT, {"max_tokens": 2.5}, "max_tokens"),
    (TEXT, {"max_tokens": True}, "max_tokens"),
    (TEXT, {"max_tokens": "5"}, "max_tokens"),
    (TEXT, {"temperature": "hot"}, "temperature"),
    (TEXT, {"temperature": True}, "temperature"),
    (TEXT, {"temperature": -1}, "temperature"),
    (TEXT, {"temperature": float("nan")}, "temperature"),
    (TEXT, {"temperature": float("inf")}, "temperature"),
    (TEXT, {"temperature": 10**400}, "temperature"),
    (TEXT, {"top_p": 0}, "top_p"),
    (TEXT, {"top_k": -2}, "top_k"),
    (TEXT, {"seed": 2**64}, "seed"),
    (TEXT, {"seed": -(2**63) - 1}, "seed"),
    (TEXT, {"stop": [""]}, "stop"),
    (TEXT, {"stop": ["x"] * 9}, "stop"),
    (TEXT, {"stop": [1]}, "stop"),
    (TEXT, {"stop": "\ud800"}, "stop"),
    (TEXT, {"stop_token_ids": [320]}, "stop_token_ids"),
    (TEXT, {"stop_token_ids": "x"}, "stop_token_ids"),
    (TEXT, {"stream": "yes"}, "stream"),
    (TEXT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (TEXT, {"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    (TEXT, {"stream": True, "stream_options": {"other": True}}, "stream_options.other"),
    (TEXT, {"stream": True, "stream_options": []}, "stream_options"),
    (TEXT, {"logprobs": 3}, "logprobs"),
    (TEXT, {"logprobs": True}, "logprobs"),
    (TEXT, {"model": 5}, "model"),
    (TEXT, {"helios": {"depth": 3}}, "helios.depth"),
    (TEXT, {"helios": {"depth": -1}}, "helios.depth"),
    (TEXT, {"helios": {"budget": 3}}, "helios.budget"),
    (TEXT, {"helios": 2}, "helios"),
    (TEXT, {"prompt": None}, "prompt"),
    (TEXT, {"prompt": ""}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": [""]}, "prompt"),
    (TEXT, {"prompt": ["a", "b"]}, "prompt"),
    (TEXT, {"prompt": [[1], [2]]}, "prompt"),
    (TEXT, {"prompt": [1, "a"]}, "prompt"),
    (TEXT, {"prompt": [1, True]}, "prompt"),
    (TEXT, {"prompt": [320]}, "prompt"),
    (TEXT, {"prompt": [-1]}, "prompt"),
    (TEXT, {"prompt": {}}, "prompt"),
    (TEXT, {"prompt": "\udfff"}, "prompt"),
    (TEXT, {"prompt": [1] * 5000}, "prompt"),
    (CHAT, {"messages": None}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "hi"}, "messages"),
    (CHAT, {"messages": ["hi"]}, "messages"),
    (CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 20_000}]}, "messages"),
    (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "user", "content": [{"type": "image_url"}]},
            ]
        },
        "messages[1].content[0].type",
    ),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}, 5]}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "mood": "sad"}]}, "messages[0].mood"),
    (
        CHAT,
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
        "messages[0].tool_calls",
    ),
]


@pytest.mark.parametrize(("path", "changes", "param"), WRONG)
async def test_what_is_wrong_is_named(
    shared_pod: Served, path: str, changes: dict[str, Any], param: str
) -> None:
    answer = await post(shared_pod, path, **changes)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["message"].startswith(f"{param}: ")
    assert "; " in answer.error["message"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=8,
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "assistant", "tool"]) | _JSON, "content": _JSON}
    )
)


@pytest.mark.parametrize("path", [CHAT, TEXT])
@given(data=st.data())
def test_whatever_a_field_holds_it_is_read_or_named(path: str, data: st.DataObject) -> None:
    known = sorted({*HEEDED[path], *NEUTRAL[path]})
    names = st.sampled_from(known) | st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
    changes = data.draw(st.dictionaries(names, _JSON, max_size=4))
    if path == CHAT and data.draw(st.booleans()):
        changes["messages"] = data.draw(_MESSAGES)
    body = BODIES[path] | changes
    try:
        READ[path](body)
    except InvalidRequest as refused:
        _, told_body = told(refused, READ[path].names(body))
        error = json.loads(encoded(told_body))["error"]
        assert re.split(r"[.\[]", error["param"])[0] in {*body, "stream_options", "helios"}


async def test_parts_of_text_and_what_an_answer_held_are_read(pod: Served) -> None:
    """What the SDK's own message holds is sent back as it came."""
    plain = [{"role": "user", "content": "one\ntwo"}, {"role": "assistant", "content": "three"}]
    nothing = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    rich = [{"role": "user", "content": parts}, {"role": "assistant", "content": "three"} | nothing]
    answers = [await post(pod, CHAT, messages=messages) for messages in (plain, rich)]
    assert answers[0].body["choices"] == answers[1].body["choices"]
