"""A pod's doors as the load sees them: token ids go in, tokens are counted as they come.

One class a door; `DOORS` lists them, and a new one is added there. Each reads as little of an answer as it
can, so that the machine works for the pod and not for its client. None may retry anything.
"""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helios_proto.inference import open_inference_pb2 as inference_pb2
from helios_proto.inference import open_inference_pb2_grpc as inference_pb2_grpc
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc

_CONNECTIONS = 8
"""Of gRPC, that streams take turns on."""

_TRY_AGAIN = ("unavailable", "queue_full")
"""Codes of errors in OpenAI's shape."""


class Refused(Exception):
    """Turned away. hint: seconds until to come back, None where none was told."""

    def __init__(self, hint: float | None, words: str) -> None:
        super().__init__(words)
        self.hint = hint


class Failed(Exception):
    """Neither answered nor turned away."""


@dataclass(frozen=True)
class Access:
    """What a client shows. token: "" for none; authority: PEM of the CA of a door that speaks TLS."""

    token: str = ""
    authority: Path | None = None


class Door(ABC):
    """An async context manager. address: as `HELP` says; model: "" for whatever is served."""

    NAME: ClassVar[str]
    HELP: ClassVar[str]
    PORT: ClassVar[str]
    """Of a pod's ports file."""

    def __init__(self, address: str, model: str, access: Access) -> None:
        self._address = address
        self._model = model
        self._access = access
        self._stack = AsyncExitStack()

    @classmethod
    def at(cls, port: int) -> str:
        """The address of a pod on this machine."""
        return f"127.0.0.1:{port}"

    async def __aenter__(self) -> Door:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    def ask(self, ids: Sequence[int], new: int) -> AsyncIterator[int]:
        """Greedy, `new` tokens whatever they are: the number of tokens of each message as it comes. Raises
        Refused and Failed."""


class GrpcDoor(Door):
    """A door on the gRPC port: what its services share."""

    PORT = "port"

    async def _open(self) -> None:
        self._channels = [
            await self._stack.enter_async_context(self._channel(number)) for number in range(_CONNECTIONS)
        ]
        self._metadata = [("authorization", f"Bearer {self._access.token}")] if self._access.token else []
        self._turn = 0

    def _channel(self, number: int) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        if self._access.authority is None:
            return grpc.aio.insecure_channel(self._address, options)
        credentials = grpc.ssl_channel_credentials(self._access.authority.read_bytes())
        return grpc.aio.secure_channel(self._address, credentials, options)

    def _next(self) -> grpc.aio.Channel:
        self._turn += 1
        return self._channels[self._turn % len(self._channels)]


class Native(GrpcDoor):
    NAME = "grpc"
    HELP = "HOST:PORT of helios.v1.Generation"

    async def ask(self, ids: Sequence[int], new: int) -> AsyncIterator[int]:
        request = pb.GenerateRequest(
            model=self._model,
            tokenized=pb.TokenizedInput(input_ids=ids),
            sampling_params=pb.SamplingParams(max_tokens=new, ignore_eos=True),
        )
        call = generation_pb2_grpc.GenerationStub(self._next()).Generate(request, metadata=self._metadata)
        try:
            async for message in call:
                if count := len(message.chunk.token_ids):
                    yield count
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from None


def refusal(error: grpc.aio.AioRpcError) -> Refused | Failed:
    words = f"{error.code().name}: {error.details()}"
    if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return Failed(words)
    status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()
    told = status is not None and any(detail.Unpack(retry) for detail in status.details)
    return Refused(retry.retry_delay.ToTimedelta().total_seconds() if told else None, words)


class Inference(GrpcDoor):
    NAME = "oip"
    HELP = "HOST:PORT of the Open Inference Protocol with Triton's streams"

    async def ask(self, ids: Sequence[int], new: int) -> AsyncIterator[int]:
        """The protocol has no ids to give: as many words as there are ids, a token each of most vocabularies
        (a letter and a space each of a vocabulary of bytes)."""
        request = inference_pb2.ModelInferRequest(model_name=self._model)
        text = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append("".join(f" {chr(97 + each % 26)}" for each in ids).encode())
        request.parameters["max_tokens"].int64_param = new
        request.parameters["temperature"].double_param = 0.0
        for name in ("ignore_eos", "stream", "return_num_output_tokens"):
            request.parameters[name].bool_param = True
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(self._next())
        try:
            async for message in stub.ModelStreamInfer(iter([request]), metadata=self._metadata):
                if message.error_message:
                    raise _said(message)
                if count := _output_tokens(message.infer_response):
                    yield count
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from None


def _said(message: inference_pb2.ModelStreamInferResponse) -> Refused | Failed:
    """Of a request on a stream that goes on."""
    parameters = message.infer_response.parameters
    if parameters["code"].string_param not in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        return Failed(message.error_message)
    return Refused(parameters["retry_after_ms"].int64_param / 1000 or None, message.error_message)


def _output_tokens(answer: inference_pb2.ModelInferResponse) -> int:
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if output.name == "num_output_tokens":
            return int.from_bytes(content, "little")
    for output in answer.outputs:
        if output.name == "num_output_tokens":
            return sum(output.contents.uint_contents)
    return 0


class OpenAi(Door):
    NAME = "openai"
    HELP = "http://HOST:PORT of an OpenAI API, without /v1"
    PORT = "http_port"

    @classmethod
    def at(cls, port: int) -> str:
        return f"http://127.0.0.1:{port}"

    async def _open(self) -> None:
        authority = self._access.authority
        tls = ssl.create_default_context(cafile=authority) if authority else True
        headers = {"Authorization": f"Bearer {self._access.token}"} if self._access.token else {}
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=60),
                headers=headers,
            )
        )

    async def ask(self, ids: Sequence[int], new: int) -> AsyncIterator[int]:
        body = {"model": self._model, "prompt": list(ids), "max_tokens": new, "temperature": 0}
        body |= {"stream": True, "ignore_eos": True}
        try:
            async with self._session.post(f"{self._address}/v1/completions", json=body) as answer:
                if answer.status != 200:
                    raise await _turned_away(answer)
                async for line in answer.content:
                    if count := _tokens(line):
                        yield count
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from None


def _tokens(line: bytes) -> int:
    """Of a server-sent event; those of a server that does not tell ids are one a text."""
    if not line.startswith(b"data: {"):
        return 0
    event: dict[str, Any] = json.loads(line[6:])
    if error := event.get("error"):
        raise _ended(error)
    if "token_ids" in (told := event.get("helios", {})):
        return len(told["token_ids"])
    return int(any(choice.get("text") for choice in event.get("choices", ())))


def _ended(error: dict[str, Any]) -> Refused | Failed:
    """In the middle of an answer, where no header can say when to come back; the words may."""
    words = str(error.get("message"))
    return Refused(None, words) if error.get("code") in _TRY_AGAIN else Failed(words)


async def _turned_away(answer: aiohttp.ClientResponse) -> Refused | Failed:
    words = f"{answer.status}: {(await answer.text())[:300]}"
    if answer.status not in (429, 503):
        return Failed(words)
    hint = answer.headers.get("Retry-After")
    return Refused(float(hint) if hint else None, words)


DOORS: dict[str, type[Door]] = {door.NAME: door for door in (Native, Inference, OpenAi)}
