"""A request's body as what the engine takes.

Called by `door`. Every field either reaches the engine, or is neutral, or refuses the request by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.engine.sampling import SamplingParams
from helios_server.engine.serving import Model
from helios_server.rpc import conversation
from helios_server.rpc.conversation import Prompt
from helios_server.rpc.fields import Fields, Neutral
from helios_server.rpc.openai import fields
from helios_server.rpc.openai.chat import Chat
from helios_server.rpc.openai.fields import HELIOS

_TEXT_TOKENS = 16
"""OpenAI's default for completions."""
_TEMPERATURE = 1.0
"""OpenAI's default; that of helios.v1 is greedy."""
_SEEDS = 1 << 64
_NO_TOP_K = -1
"""How other servers write that it is off."""
_NEW_NAME = "max_completion_tokens"
"""Of max_tokens."""


@dataclass(frozen=True)
class Asked:
    """One request, but for what is to be continued."""

    model: str
    """Empty: whatever is served."""
    sampling: SamplingParams
    depth: int
    """Layers; 0: the budget."""
    stream: bool
    include_usage: bool
    """At the end of a stream."""
    cache_salt: str
    """Its prompt is found by those with the same one."""


class ChatRequest:
    """A chat to be answered."""

    @staticmethod
    def names(body: Mapping[str, Any]) -> dict[str, str]:
        """What the engine calls a field, to what this body calls it."""
        return _names("messages", "max_tokens" if body.get(_NEW_NAME) is None else _NEW_NAME)

    def __init__(self, body: Mapping[str, Any]) -> None:
        given = Fields(body)
        given.admit(fields.CHAT, fields.CHAT_NEUTRAL)
        self._chat = Chat.read(given)
        most, also = given.whole("max_tokens"), given.whole(_NEW_NAME)
        if None not in (most, also) and most != also:
            raise given.wrong("max_tokens", f"is another number than {_NEW_NAME}", "Give one of the two")
        self.asked = _asked(given, most if also is None else also, given.flag("logprobs"))

    async def prompt(self, model: Model) -> Prompt:
        return await self._chat.prompt(model)


class TextRequest:
    """A text, or token ids, to be continued."""

    @staticmethod
    def names(body: Mapping[str, Any]) -> dict[str, str]:
        """As those of a chat."""
        return _names("prompt", "max_tokens")

    def __init__(self, body: Mapping[str, Any]) -> None:
        given = Fields(body)
        given.admit(fields.TEXT, fields.TEXT_NEUTRAL)
        self._text, self._ids = _prompt(given)
        alternatives = given.whole("logprobs")
        if alternatives:
            raise given.wrong(
                "logprobs", f"{alternatives} asks for other tokens than the chosen one", "Give 0"
            )
        most = given.whole("max_tokens") if given.has("max_tokens") else _TEXT_TOKENS
        self.asked = _asked(given, most, alternatives is not None)

    async def prompt(self, model: Model) -> Prompt:
        if self._ids:
            return conversation.of_ids(model, self._ids)
        return await conversation.of_text(model, self._text)


def _names(prompt: str, max_tokens: str) -> dict[str, str]:
    return {
        "input": prompt,
        "tokenized.input_ids": prompt,
        "sampling_params.max_tokens": max_tokens,
        "exit_policy.layer_budget": f"{HELIOS}.depth",
    }


def _asked(given: Fields, max_tokens: int | None, logprobs: bool) -> Asked:
    stream, options, helios = given.flag("stream"), given.object("stream_options"), given.object(HELIOS)
    if given.has("stream_options") and not stream:
        raise given.wrong("stream_options", "is given without stream", "Leave it out, or give stream: true")
    options.admit(frozenset({"include_usage"}), {"include_obfuscation": Neutral((False,))})
    helios.admit(frozenset({"depth"}), {})
    depth = helios.whole("depth") or 0
    if depth < 0:
        raise helios.wrong("depth", f"{depth} is no depth", "Give a number of layers, 0 for the budget")
    return Asked(
        model=given.text("model"),
        sampling=_sampling(given, max_tokens, logprobs),
        depth=depth,
        stream=stream,
        include_usage=options.flag("include_usage"),
        cache_salt=given.text("cache_salt"),
    )


def _sampling(given: Fields, max_tokens: int | None, logprobs: bool) -> SamplingParams:
    seed, top_k = given.whole("seed"), given.whole("top_k") or 0
    if seed is not None and -_SEEDS // 2 <= seed < 0:
        seed += _SEEDS  # a signed number of 64 bits is as good a seed
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=given.whole("min_tokens") or 0,
        temperature=_or(given.number("temperature"), _TEMPERATURE),
        top_k=0 if top_k == _NO_TOP_K else top_k,
        top_p=_or(given.number("top_p"), 1.0),
        min_p=_or(given.number("min_p"), 0.0),
        repetition_penalty=_or(given.number("repetition_penalty"), 1.0),
        stop=given.texts("stop"),
        stop_token_ids=given.wholes("stop_token_ids"),
        ignore_eos=given.flag("ignore_eos"),
        seed=seed,
        logprobs=logprobs,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _prompt(given: Fields) -> tuple[str, tuple[int, ...]]:
    """A text, or ids. An array of one prompt is that prompt."""
    value = given.raw("prompt")
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int):
        value = value[0]
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return "", tuple(value)
    if isinstance(value, list) and any(isinstance(each, str | list) for each in value):
        fix = "Send a request for each prompt: they share the batch"
        raise given.wrong("prompt", f"holds {len(value)} prompts", fix)
    if value is None or value in ("", []):
        problem = "is missing" if value is None else "is empty"
        raise given.wrong("prompt", problem, "Give the text to continue, or its token ids")
    return Fields({"prompt": value}).text("prompt"), ()
