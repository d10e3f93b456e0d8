"""What a caller asks, as the message that asks it.

Called by both clients. A value that no message can carry is refused here, by the name that the server has for
its field; what is out of range but can be sent, the server refuses. Nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from google.protobuf.descriptor import FieldDescriptor
from helios_proto.v1 import generation_pb2 as pb

from helios_client.errors import InvalidArgument

Prompt = str | Sequence[int]
"""A text, or token ids of the model's own vocabulary."""
Message = Mapping[str, str]
"""role (system, developer, user or assistant), content, and name for templates that use one."""


class Options(TypedDict, total=False):
    """What may be said of a request. Left out, or None: the server's default, in brackets."""

    max_tokens: int | None
    """[256] New tokens, 1 or more."""
    min_tokens: int | None
    """[0] End-of-sequence is not sampled before."""
    temperature: float | None
    """[0] Below 1e-5 is greedy."""
    top_k: int | None
    """[0] 0 is off."""
    top_p: float | None
    """[1] (0, 1]."""
    min_p: float | None
    """[0] [0, 1]."""
    repetition_penalty: float | None
    """[1] 0.001 to 1000; over prompt and output."""
    stop: str | Sequence[str] | None
    """Up to 8 strings that end the answer; not part of its text."""
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    """[False]"""
    seed: int | None
    """[Derived from request_id]"""
    logprobs: bool | None
    """[False] Fills `Chunk.logprobs`."""
    depth: int | None
    """[0] One of `ModelInfo.exit_layers`, at most the server's budget; 0 is the budget."""
    model: str | None
    """[Whatever is served]"""
    request_id: str | None
    """[A new one] Unique among running requests; what `abort` takes."""
    cache_salt: str | None
    """[""] Only prompts with the same salt share what was computed of their beginning."""


_OWN = {"model": "model", "request_id": "request_id", "cache_salt": "cache_salt"}
_DEPTH = {"depth": "layer_budget"}
"""Options that are no sampling parameters, to the fields that they are."""
_KEYS = ("role", "content", "name")
_KINDS = {
    FieldDescriptor.CPPTYPE_UINT32: "whole numbers of 32 bits, 0 or more",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, 0 or more",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_STRING: "text that UTF-8 can hold",
}
"""What a field of each type holds."""


def continuing(prompt: Prompt, options: Options, *, stream: bool) -> pb.GenerateRequest:
    """Raises InvalidArgument; TypeError for an option that nobody knows."""
    asked = _asked(options, stream)
    if isinstance(prompt, str):
        _put(asked, "text", prompt, "text")
    else:
        asked.tokenized.SetInParent()
        _put(asked.tokenized, "input_ids", prompt, "tokenized.input_ids")
    return asked


def chatting(messages: Sequence[Message], options: Options, *, stream: bool) -> pb.GenerateRequest:
    """Raises as `continuing`."""
    asked = _asked(options, stream)
    asked.chat.SetInParent()
    if not isinstance(messages, Iterable):
        raise InvalidArgument("chat.messages", f"{messages!r:.80} are no messages", "Give a list of them")
    for index, message in enumerate([messages] if isinstance(messages, str) else messages):
        _say(asked.chat.messages.add(), message, f"chat.messages[{index}]")
    return asked


def _say(said: pb.ChatMessage, message: Message, field: str) -> None:
    if isinstance(message, Mapping) and "content" not in message:
        raise InvalidArgument(f"{field}.content", "is missing", "Give a text")
    if not isinstance(message, Mapping):
        problem = f"{message!r:.80} is no message"
        raise InvalidArgument(field, problem, 'Give {"role": "user", "content": "..."}')
    for key, value in message.items():
        if key not in _KEYS:
            fix = f"Leave it out: known are {', '.join(_KEYS)}"
            raise InvalidArgument(f"{field}.{key}", "is not known here", fix)
        _put(said, key, value, f"{field}.{key}")


def _asked(options: Options, stream: bool) -> pb.GenerateRequest:
    known = Options.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(f"there is no option {unknown[0]}; there are {', '.join(known)}")
    asked = pb.GenerateRequest(stream=stream)
    for name, value in options.items():
        if value is None:
            continue
        if name in _OWN:
            _put(asked, name, value, name)
        elif name in _DEPTH:
            _put(asked.exit_policy, _DEPTH[name], value, f"exit_policy.{_DEPTH[name]}")
        else:
            given = [value] if name == "stop" and isinstance(value, str) else value
            _put(asked.sampling_params, name, given, f"sampling_params.{name}")
    return asked


def _put(message: Any, name: str, value: Any, field: str) -> None:
    """Sets a field, whole where it is a list. InvalidArgument for what it cannot hold."""
    try:
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            setattr(message, name, value)
        else:
            getattr(message, name).extend(value)
    except (TypeError, ValueError, AttributeError):
        kind = message.DESCRIPTOR.fields_by_name[name]
        problem = f"{value!r:.80} cannot be sent"
        raise InvalidArgument(field, problem, f"Give {_KINDS[kind.cpp_type]}") from None
