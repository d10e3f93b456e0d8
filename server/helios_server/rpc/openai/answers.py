"""The engine's events as OpenAI's objects, whole or in chunks.

Made by `door` for each answer. What OpenAI's objects have no place for stands in their `helios` object.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from helios_contract.serves import Precision

from helios_server.engine.request import FinishedEvent, Span, TokensEvent
from helios_server.engine.telemetry import ModelInfo
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.openai.fields import HELIOS

Object = dict[str, Any]
_LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity."""
_NOT_A_CHARACTER = "\ufffd"


@dataclass
class Answer(ABC):
    """One answer. `model`: as clients know it; `info`: of what serves now."""

    KIND: ClassVar[str]
    CHUNK: ClassVar[str]

    request_id: str
    model: str
    info: Callable[[], ModelInfo]
    tokenizer: Tokenizer
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))
    _offset: int = 0

    def whole(self, event: FinishedEvent, tokens: Sequence[TokensEvent]) -> Object:
        choice = {
            "index": 0,
            **self._text(event.text),
            "logprobs": self._logprobs(tokens),
            "finish_reason": event.reason.value,
        }
        confidences = [each for tokens_event in tokens for each in tokens_event.confidences]
        helios = self._summary(event) | {"confidences": confidences}
        return self._head(self.KIND) | {"choices": [choice], "usage": usage(event), HELIOS: helios}

    def chunk(self, event: TokensEvent) -> Object:
        choice = {
            "index": 0,
            **self._delta(event.text),
            "logprobs": self._logprobs([event]),
            "finish_reason": None,
        }
        helios = {
            "depth": event.depth,
            "token_ids": list(event.token_ids),
            "confidences": list(event.confidences),
            "breaches": list(event.breaches),
        }
        return self._head(self.CHUNK) | {"choices": [choice], HELIOS: helios}

    def last_chunk(self, event: FinishedEvent) -> Object:
        choice = {"index": 0, **self._end(), "logprobs": None, "finish_reason": event.reason.value}
        return self._head(self.CHUNK) | {"choices": [choice], HELIOS: self._summary(event)}

    def usage_chunk(self, event: FinishedEvent) -> Object:
        return self._head(self.CHUNK) | {"choices": [], "usage": usage(event)}

    def first_chunk(self) -> Object | None:
        """What goes out before any token; None: nothing."""
        return None

    # -- what differs

    @abstractmethod
    def _text(self, text: str) -> Object: ...

    @abstractmethod
    def _delta(self, text: str) -> Object: ...

    @abstractmethod
    def _end(self) -> Object: ...

    @abstractmethod
    def _logprobs(self, tokens: Sequence[TokensEvent]) -> Object | None: ...

    # -- what does not

    def _head(self, kind: str) -> Object:
        info = self.info()
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": _fingerprint(info),
        }

    def _summary(self, event: FinishedEvent) -> Object:
        last, info = event.spans[-1].served if event.spans else None, self.info()
        precision = last or info
        return {
            "candidate": last.candidate if last else info.candidate,
            "revision": last.revision if last else info.model_revision,
            "depth": last.depth if last else info.layer_budget,
            "weight_dtype": precision.weight_dtype,
            "kv_cache_dtype": precision.kv_cache_dtype,
            "layer_budget": info.layer_budget,
            "total_layers": info.total_layers,
            "mean_layers": event.mean_layers,
            "mean_confidence": event.mean_confidence,
            "breaches": event.breaches,
            "preemptions": event.preemptions,
            "matched_stop": event.matched_stop,
            "spans": [_span(span) for span in event.spans],
        }

    def _tokens(self, events: Sequence[TokensEvent]) -> list[tuple[str, float]]:
        """Text and logprob of each token."""
        pairs = [pair for event in events for pair in zip(event.token_ids, event.logprobs, strict=True)]
        return [
            (self.tokenizer.decode([token], skip_special=False), max(logprob, _LEAST_LOGPROB))
            for token, logprob in pairs
        ]


class ChatAnswer(Answer):
    KIND, CHUNK = "chat.completion", "chat.completion.chunk"

    def first_chunk(self) -> Object:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._head(self.CHUNK) | {"choices": [choice]}

    def _text(self, text: str) -> Object:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str) -> Object:
        return {"delta": {"content": text}}

    def _end(self) -> Object:
        return {"delta": {}}

    def _logprobs(self, tokens: Sequence[TokensEvent]) -> Object | None:
        if not self.logprobs:
            return None
        content = [
            {"token": text, "logprob": logprob, "bytes": _bytes(text), "top_logprobs": []}
            for text, logprob in self._tokens(tokens)
        ]
        return {"content": content, "refusal": None}


class TextAnswer(Answer):
    KIND, CHUNK = "text_completion", "text_completion"

    def _text(self, text: str) -> Object:
        return {"text": text}

    def _delta(self, text: str) -> Object:
        return {"text": text}

    def _end(self) -> Object:
        return {"text": ""}

    def _logprobs(self, tokens: Sequence[TokensEvent]) -> Object | None:
        if not self.logprobs:
            return None
        listed = self._tokens(tokens)
        offsets = []
        for text, _ in listed:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": [text for text, _ in listed],
            "token_logprobs": [logprob for _, logprob in listed],
            "top_logprobs": None,
            "text_offset": offsets,
        }


def usage(event: FinishedEvent) -> Object:
    completion = len(event.output_ids)
    return {
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": event.prompt_tokens + completion,
    }


def model(name: str, info: ModelInfo, created: int) -> Object:
    """created: seconds since 1970."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "helios",
        HELIOS: {
            "candidate": info.candidate,
            "model_uri": info.model_uri,
            "revision": info.model_revision,
            "layer_budget": info.layer_budget,
            "total_layers": info.total_layers,
            "weight_dtype": info.weight_dtype,
            "kv_cache_dtype": info.kv_cache_dtype,
            "exit_layers": list(info.exit_layers),
            "max_context_tokens": info.max_context_tokens,
            "max_request_tokens": info.max_request_tokens,
        },
    }


def _fingerprint(info: ModelInfo) -> str:
    """Changes with whatever an answer to the same request may differ by."""
    precision = Precision(info.weight_dtype, info.kv_cache_dtype)
    told = "" if precision == Precision() else f":{precision}"
    return f"{info.candidate}@{info.model_revision or '-'}:{info.layer_budget}{told}"


def _span(span: Span) -> Object:
    served = span.served
    return {
        "from_token": span.from_token,
        "candidate": served.candidate,
        "model_uri": served.model_uri,
        "revision": served.revision,
        "backbone": served.backbone,
        "exits": served.exits_digest,
        "depth": served.depth,
        "weight_dtype": served.weight_dtype,
        "kv_cache_dtype": served.kv_cache_dtype,
        "exit_mode": served.exit_mode,
    }


def _bytes(text: str) -> list[int] | None:
    """None for a token that is no whole character."""
    return None if _NOT_A_CHARACTER in text else list(text.encode())
