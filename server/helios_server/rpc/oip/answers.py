"""The engine's events as answers of tensors, whole or one after another.

Made by `service` for each request. Each answer has every output that was asked for: what counts or lists
tokens is of the tokens in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helios_proto.inference import open_inference_pb2 as pb

from helios_server.engine.request import FinishedEvent, TokensEvent
from helios_server.errors import HeliosError
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.errors import in_short, retry_seconds
from helios_server.rpc.oip import names
from helios_server.rpc.oip.requests import Asked
from helios_server.rpc.oip.tensors import add_output

_LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity."""


@dataclass(frozen=True)
class _Part:
    """What one answer tells. reason: "" before the end."""

    text: str
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    confidences: Sequence[float] = ()
    depths: Sequence[int] = ()
    reason: str = ""


class Answer:
    """One request's answers. prompt_tokens: of its text."""

    def __init__(
        self, request_id: str, model: str, asked: Asked, prompt_tokens: int, tokenizer: Tokenizer
    ) -> None:
        self._id = request_id
        self._model = model
        self._asked = asked
        self._prompt_tokens = prompt_tokens
        self._tokenizer = tokenizer
        self._logprob = 0.0

    def chunk(self, event: TokensEvent) -> pb.ModelInferResponse:
        return self._made(_part([event], event.text))

    def last(self, event: FinishedEvent) -> pb.ModelInferResponse:
        """Of a stream: no more tokens."""
        return self._made(_Part("", reason=event.reason.value))

    def whole(self, event: FinishedEvent, tokens: Sequence[TokensEvent]) -> pb.ModelInferResponse:
        text = self._asked.text + event.text if self._asked.echo else event.text
        return self._made(_part(tokens, text, event.reason.value))

    def empty(self) -> pb.ModelInferResponse:
        """No outputs."""
        return pb.ModelInferResponse(model_name=self._model, model_version=names.VERSION, id=self._id)

    def _made(self, part: _Part) -> pb.ModelInferResponse:
        response = self.empty()
        self._logprob += sum(part.logprobs)
        for name in self._asked.outputs:
            add_output(
                response, name, names.OUTPUTS[name].datatype, _ELEMENTS[name](self, part), self._asked.raw
            )
        return response

    def _told_logprobs(self, part: _Part) -> str:
        """As JSON, a token each."""
        told = []
        for token, logprob in zip(part.ids, part.logprobs, strict=True):
            word = self._tokenizer.decode([token], skip_special=False)
            told.append({str(token): {"logprob": max(logprob, _LEAST_LOGPROB), "decoded_token": word}})
        return json.dumps(told)


_ELEMENTS: Mapping[str, Callable[[Answer, _Part], Sequence[Any]]] = {
    names.TEXT_OUTPUT: lambda answer, part: [part.text.encode()],
    names.FINISH_REASON: lambda answer, part: [part.reason.encode()],
    "cumulative_logprob": lambda answer, part: [answer._logprob],
    "logprobs": lambda answer, part: [answer._told_logprobs(part).encode()],
    "num_input_tokens": lambda answer, part: [answer._prompt_tokens],
    "num_output_tokens": lambda answer, part: [len(part.ids)],
    names.DEPTH: lambda answer, part: part.depths,
    "confidence": lambda answer, part: part.confidences,
    "cum_log_probs": lambda answer, part: [answer._logprob],
    "output_log_probs": lambda answer, part: part.logprobs,
    "sequence_index": lambda answer, part: [0],
}


def _part(tokens: Sequence[TokensEvent], text: str, reason: str = "") -> _Part:
    return _Part(
        text,
        [each for event in tokens for each in event.token_ids],
        [each for event in tokens for each in event.logprobs],
        [each for event in tokens for each in event.confidences],
        [event.depth for event in tokens for _ in event.token_ids],
        reason,
    )


def on_stream(answer: pb.ModelInferResponse, final: bool) -> pb.ModelStreamInferResponse:
    """Each says whether it is its request's last."""
    answer.parameters[names.FINAL].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=answer)


def failure(request_id: str, model: str, code: str, message: str) -> pb.ModelStreamInferResponse:
    """A request that ended without an answer; its stream goes on. Clients that show the message alone see
    which one."""
    answer = pb.ModelInferResponse(model_name=model, model_version=names.VERSION, id=request_id)
    answer.parameters["code"].string_param = code
    whose = f" (request {request_id})" if request_id else ""
    failed = on_stream(answer, final=True)
    failed.error_message = f"{code}: {message}{whose}"
    return failed


def refusal(request_id: str, model: str, error: HeliosError) -> pb.ModelStreamInferResponse:
    """As the error has it, with when to come back."""
    failed = failure(request_id, model, error.code, in_short(error))
    parameters = failed.infer_response.parameters
    seconds = retry_seconds(error)
    if seconds is not None:
        parameters["retry_after_ms"].int64_param = round(seconds * 1000)
    return failed
