"""A thin client of `helios.v1.Generation`, message by message: what the demo and the tests speak through.

`helios_client`, which applications use, has channels with the same options, and values and exceptions of its
own.

It adds two things to the generated stub: the service config that retries what a draining pod refuses, and the
trailing metadata of an answer. It must import nothing but grpc and protobuf, so that clients stay small, and
must not retry anything itself: what the service config does not retry, the caller sees.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from helios_proto import addresses
from helios_proto.v1 import generation_pb2, generation_pb2_grpc

SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "helios.v1.Generation"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.25s",
                "maxBackoff": "3s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""Four attempts, UNAVAILABLE only, and (by gRPC itself) only before the first message of an answer. Where the
name has several addresses, as a headless Service's, each call goes to the next of them that answers."""

MOST_BYTES = (4 << 20) + 4096
"""What is kept of a call to send it again: the largest message that a pod takes, and its headers. By itself
gRPC keeps 256 KiB, and a longer prompt that a draining pod refuses would be an error."""

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.per_rpc_retry_buffer_size", MOST_BYTES),
    # When the pods behind a name have gone, and others are there. By itself gRPC asks every 30 seconds.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class Answer:
    """A running Generate call: iterate its messages; after the end, `trailing` and `spans` say what made
    it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[generation_pb2.GenerateResponse]:
        async for message in self._call:
            yield message

    async def text(self) -> AsyncIterator[str]:
        """The text as it comes."""
        async for message in self:
            if message.HasField("chunk") and message.chunk.text:
                yield message.chunk.text

    async def complete(self) -> generation_pb2.Complete:
        """Reads to the end and returns the last message."""
        last = generation_pb2.Complete()
        async for message in self:
            last = message.complete
        return last

    async def trailing(self) -> dict[str, str]:
        """The trailing metadata `helios-*`, also of a call that failed."""
        metadata = await self._call.trailing_metadata() or ()
        return {key: value for key, value in metadata if key.startswith("helios-")}

    async def spans(self) -> list[dict[str, Any]]:
        """Which model, heads and depth produced the output, from which token on."""
        spans: list[dict[str, Any]] = json.loads((await self.trailing()).get("helios-spans", "[]"))
        return spans

    def cancel(self) -> None:
        """Frees the request's row at the server's next step."""
        self._call.cancel()


class GenerationClient:
    """One channel to the address that applications use: host:port or [IPv6]:port, ValueError for another
    IPv6. tls: as grpc.ssl_channel_credentials makes it, None for clear text; token: the caller's, "" where
    none is asked for; options: more of gRPC's, which replace those of the same names. An async context
    manager."""

    def __init__(
        self,
        address: str,
        tls: grpc.ChannelCredentials | None = None,
        token: str = "",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        target = addresses.check(address)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        told = [*(dict(CHANNEL_OPTIONS) | dict(options)).items()]
        self._channel = (
            grpc.aio.secure_channel(target, tls, options=told)
            if tls
            else grpc.aio.insecure_channel(target, options=told)
        )
        self.stub = generation_pb2_grpc.GenerationStub(self._channel)

    async def __aenter__(self) -> GenerationClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def generate(self, request: generation_pb2.GenerateRequest, timeout: float | None = None) -> Answer:
        """`timeout` is the call's deadline in seconds."""
        return Answer(self.stub.Generate(request, timeout=timeout, metadata=self._metadata))
