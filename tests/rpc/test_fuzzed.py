"""Any message of the protos, any body of the JSON fields, any bytes: each gets a status, and never one that
says that the server is at fault.

Found and made small by hypothesis. What ten thousand of them leave behind stands in `test_hostile`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from helios_proto.v1 import generation_pb2 as pb
from helios_server.rpc.openai import fields
from helios_server.rpc.server import Ports
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rpc.openai_door.clients import BODIES, CHAT, TEXT
from tests.rpc.pods import serving
from tests.sizes import examples

_SERVICE = pb.DESCRIPTOR.services_by_name["Generation"]
_OURS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
_OWN = ("model", "prompt", "messages", "temperature", "stream", "stop", "logprobs", "n", "helios", "nothing")

many = settings(max_examples=examples(25, long=10_000))


@pytest.fixture(scope="module")
def ports(tiny: Path) -> Iterator[Ports]:
    """Of a pod on a loop of its own thread: hypothesis calls plain functions."""
    bound: list[Ports] = []
    opened, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(tiny, max_queue_size=64) as pod:
            bound.append(pod.ports)
            opened.set()
            await over.wait()
            load = await pod.load()
            assert (load.running, load.waiting, load.kv_used_tokens) == (0, 0, 0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert opened.wait(180)
    yield bound[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def channel(ports: Ports) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{ports.port}") as made:
        yield made


# -- messages ------------------------------------------------------------------------------------------------

_WORDS = st.one_of(st.sampled_from(["", "chat", "\0", "<|user|>"]), st.text(max_size=40))
_NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 7, 319, 320]), st.integers(0, 2**32 - 1))


def value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Of the field's type, at its edges more often than elsewhere."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return message(field.message_type)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_STRING:
            return _WORDS
        case FieldDescriptor.CPPTYPE_UINT64:
            return st.one_of(_NUMBERS, st.integers(0, 2**64 - 1))
        case FieldDescriptor.CPPTYPE_UINT32:
            return _NUMBERS
    raise AssertionError(f"{field.full_name} is of a type that this test does not know")


def message(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """With any of its fields."""
    known = {
        field.name: st.lists(value(field), max_size=5) if field.is_repeated else value(field)
        for field in descriptor.fields
    }
    made: type[Message] = descriptor._concrete_class
    return st.fixed_dictionaries({}, optional=known).map(
        lambda given: made(**_one_of_each(descriptor, given))
    )


def _one_of_each(descriptor: Descriptor, given: dict[str, Any]) -> dict[str, Any]:
    """Of a oneof, the last that is given holds, as on the wire."""
    for oneof in descriptor.oneofs:
        for name in [field.name for field in oneof.fields if field.name in given][:-1]:
            del given[name]
    return given


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method, and a message of it, whole, cut, or with something behind it."""
    method = draw(st.sampled_from(list(_SERVICE.methods)))
    made = draw(message(method.input_type))
    if isinstance(made, pb.GenerateRequest):
        made.sampling_params.max_tokens = draw(st.integers(0, 9))  # a long answer is no other case
    content = made.SerializeToString()
    match draw(st.sampled_from(["whole", "whole", "cut", "longer", "noise"])):
        case "cut":
            content = content[: draw(st.integers(0, len(content)))]
        case "longer":
            content += draw(st.binary(max_size=20))
        case "noise":
            content = draw(st.binary(max_size=200))
    return method.name, content


@many
@given(call=calls())
def test_any_message_gets_a_status(channel: grpc.Channel, call: tuple[str, bytes]) -> None:
    method, content = call
    ask = channel.unary_stream(f"/{_SERVICE.full_name}/{method}")(content, timeout=60)
    with suppress(grpc.RpcError):
        for _ in ask:
            pass
    assert ask.code() not in _OURS, ask.details()
    assert ask.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


# -- bodies --------------------------------------------------------------------------------------------------

_LEAVES = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 0.5, 2**70, 1e308, "", "chat", "\ud800", "ä"]),
    st.text(max_size=40),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
_KEYS = st.sampled_from(["role", "content", "depth", "type", "text", "include_usage", "x"])
_ANY = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)
_FIELDS = sorted(fields.CHAT | fields.TEXT | set(fields.CHAT_NEUTRAL) | set(fields.TEXT_NEUTRAL) | set(_OWN))
_LENGTHS = {"max_tokens", "max_completion_tokens", "min_tokens"}
"""Any of them above some hundreds, or none, is a long answer and no other case."""


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body that is right but for some fields; or cut, or noise."""
    path = draw(st.sampled_from([CHAT, TEXT]))
    named = [name for name in _FIELDS if name not in _LENGTHS]
    changes = draw(st.dictionaries(st.sampled_from(named), _ANY, max_size=4))
    lengths = draw(st.dictionaries(st.sampled_from(sorted(_LENGTHS)), _lengths(), max_size=1))
    kept = BODIES[path] if draw(st.booleans()) else {"max_tokens": 3}
    content = json.dumps(kept | changes | lengths).encode()
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "noise"])):
        case "cut":
            content = content[: draw(st.integers(0, len(content)))]
        case "noise":
            content = draw(st.binary(max_size=200))
    return path, content


def _lengths() -> st.SearchStrategy[Any]:
    return st.one_of(st.integers(-3, 9), st.sampled_from([2**32, 2**70, "3", 1.5, True, [], {}]))


@many
@given(body=bodies())
def test_any_body_gets_a_status(ports: Ports, body: tuple[str, bytes]) -> None:
    path, content = body
    assert ports.http_port
    connection = HTTPConnection("127.0.0.1", ports.http_port, timeout=60)
    try:
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    assert answer.status < 500, text
    if answer.status != 200:
        assert set(json.loads(text)) == {"error"}
    assert b"the server failed" not in text


@many
@given(
    begin=st.sampled_from(["GET / HTTP/1.1", "POST /v1/completions HTTP/1.1", ""]),
    rest=st.binary(max_size=100),
)
def test_any_bytes_of_http_get_a_status_or_an_end(ports: Ports, begin: str, rest: bytes) -> None:
    assert ports.http_port
    with socket.create_connection(("127.0.0.1", ports.http_port), timeout=60) as client:
        client.sendall(f"{begin}\r\nHost: pod\r\nConnection: close\r\n".encode() + rest + b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        heard = b""
        with suppress(ConnectionResetError):
            while piece := client.recv(65536):
                heard += piece
    assert not heard or heard.startswith(b"HTTP/1.")
    assert not heard.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5"))
