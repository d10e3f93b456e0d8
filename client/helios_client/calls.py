"""The calls that both clients have, so that they are the same ones.

`sync` and `aio` give them their transport: how a message is sent, waited for, and read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, Unpack

from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc

from helios_client import requests
from helios_client.answers import ModelInfo
from helios_client.connection import Connection
from helios_client.requests import Message, Options, Prompt
from helios_client.waiting import Patience

StreamT = TypeVar("StreamT")
AnswerT = TypeVar("AnswerT")
InfoT = TypeVar("InfoT")
FoundT = TypeVar("FoundT")
"""Of `sync` what is meant, of `aio` what is awaited for it."""


class Calls(ABC, Generic[StreamT, AnswerT, InfoT, FoundT]):
    """Each raises InvalidArgument for what cannot be sent, TypeError for an option that nobody knows, and
    HeliosError for what fails. timeout: seconds; None: the client's."""

    def __init__(self, connection: Connection, channel: Any, timeout: float | None, patience: float) -> None:
        self._connection = connection
        self._channel = channel
        self._stub = generation_pb2_grpc.GenerationStub(channel)
        self._timeout = timeout
        self._seconds = patience

    def generate(
        self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> AnswerT:
        """Continues a prompt; the whole answer at once."""
        return self._whole(requests.continuing(prompt, options, stream=False), timeout)

    def stream(self, prompt: Prompt, *, timeout: float | None = None, **options: Unpack[Options]) -> StreamT:
        """Continues a prompt; its tokens as they come. It is sent when the first one is asked for."""
        return self._stream(requests.continuing(prompt, options, stream=True), timeout)

    def chat(
        self, messages: Sequence[Message], *, timeout: float | None = None, **options: Unpack[Options]
    ) -> AnswerT:
        """The model's next word in a conversation, by its own chat template; the whole answer at once."""
        return self._whole(requests.chatting(messages, options, stream=False), timeout)

    def stream_chat(
        self, messages: Sequence[Message], *, timeout: float | None = None, **options: Unpack[Options]
    ) -> StreamT:
        """The same, its tokens as they come."""
        return self._stream(requests.chatting(messages, options, stream=True), timeout)

    def model_info(self, *, timeout: float | None = None) -> InfoT:
        """What serves now."""
        return self._ask(self._stub.GetModelInfo, pb.GetModelInfoRequest(), ModelInfo.of, timeout)  # type: ignore[no-any-return]

    def abort(self, request_id: str, *, timeout: float | None = None) -> FoundT:
        """Ends a running request by its id; whether there was one. Its own call completes, with `abort`. Of
        several replicas one is asked: to close a stream ends its request wherever it runs."""
        asked = pb.AbortRequest(request_id=request_id)
        return self._ask(self._stub.Abort, asked, lambda said: said.found, timeout)  # type: ignore[no-any-return]

    def _sending(self, asked: pb.GenerateRequest) -> Callable[[float | None], Any]:
        """To be called with the seconds that are left, once or more."""
        metadata = self._connection.metadata
        return lambda left: self._stub.Generate(asked, timeout=left, metadata=metadata)

    def _patience(self, timeout: float | None) -> Patience:
        return Patience(self._seconds, self._deadline(timeout))

    def _deadline(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    @abstractmethod
    def _stream(self, asked: pb.GenerateRequest, timeout: float | None) -> StreamT: ...

    @abstractmethod
    def _whole(self, asked: pb.GenerateRequest, timeout: float | None) -> AnswerT: ...

    @abstractmethod
    def _ask(self, method: Any, message: Any, read: Callable[[Any], Any], timeout: float | None) -> Any: ...
