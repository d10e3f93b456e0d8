"""The fields of a request's body: those that are heeded, and those that are taken at a neutral value only.

Read by `requests`. docs/clients.md shows the neutral values as a table, and a test holds the two together:
a field that OpenAI's SDK can send and that is in neither list fails it. Every error names the field.
"""

from __future__ import annotations

from collections.abc import Mapping

from helios_server.rpc.fields import Neutral

HELIOS = "helios"
"""The object in which a request asks, and an answer tells, what only an early-exit server knows."""
_SAMPLING = ("temperature", "top_p", "seed", "stop")
_OF_THIS_SERVER = (
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "cache_salt",
    HELIOS,
)
"""Not OpenAI's: the names are those of other servers of open models."""
_BOTH = ("model", "max_tokens", *_SAMPLING, "stream", "stream_options", "logprobs", *_OF_THIS_SERVER)
CHAT = frozenset({"messages", "max_completion_tokens", *_BOTH})
TEXT = frozenset({"prompt", *_BOTH})
"""What is heeded."""
_NOTHING = Neutral()
_NO_TOOLS = Neutral(("none", "auto"))
_ONLY_BOTH = {
    "frequency_penalty": Neutral((0,)),
    "logit_bias": Neutral(({},)),
    "n": Neutral((1,)),
    "presence_penalty": Neutral((0,)),
    "user": Neutral(any_of=(str,)),
}
CHAT_NEUTRAL: Mapping[str, Neutral] = _ONLY_BOTH | {
    "audio": _NOTHING,
    "function_call": _NO_TOOLS,
    "functions": Neutral(([],)),
    "metadata": Neutral(({},)),
    "modalities": Neutral((["text"],)),
    "moderation": _NOTHING,
    "parallel_tool_calls": Neutral(any_of=(bool,)),
    "prediction": _NOTHING,
    "prompt_cache_key": Neutral(any_of=(str,)),
    "prompt_cache_options": Neutral(({},)),
    "prompt_cache_retention": Neutral(("in_memory",)),
    "reasoning_effort": Neutral(("none",)),
    "response_format": Neutral(({"type": "text"},)),
    "safety_identifier": Neutral(any_of=(str,)),
    "service_tier": Neutral(("auto", "default")),
    "store": Neutral((False,)),
    "tool_choice": _NO_TOOLS,
    "tools": Neutral(([],)),
    "top_logprobs": Neutral((0,)),
    "verbosity": Neutral(("medium",)),
    "web_search_options": _NOTHING,
}
TEXT_NEUTRAL: Mapping[str, Neutral] = _ONLY_BOTH | {
    "best_of": Neutral((1,)),
    "echo": Neutral((False,)),
    "suffix": Neutral(("",)),
}
