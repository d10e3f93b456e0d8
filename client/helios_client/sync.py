"""The client without asyncio.

For applications and `helios generate`. Threads may share a `Client`, and one may close the `Stream` that
another reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from helios_proto.client import CHANNEL_OPTIONS
from helios_proto.v1 import generation_pb2 as pb

from helios_client import errors
from helios_client.answers import Answer, Chunk, ModelInfo
from helios_client.calls import Calls
from helios_client.connection import TLS, Connection
from helios_client.waiting import Patience


class Stream:
    """A request under way: iterate its chunks; at their end `answer` is the whole. Leaving the `with`
    block, or `close`, ends the request and frees its row; whoever reads on gets Cancelled."""

    def __init__(self, send: Callable[[float | None], Any], patience: Patience, address: str) -> None:
        self._send = send
        self._patience = patience
        self._address = address
        self._call: Any = None
        self._closed = threading.Event()
        self._answer: Answer | None = None
        self._chunks = self._read()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        """Raises HeliosError."""
        return next(self._chunks)

    def close(self) -> None:
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    @property
    def answer(self) -> Answer:
        """RuntimeError before the end."""
        if self._answer is None:
            raise RuntimeError("the answer is whole when all of its chunks are read")
        return self._answer

    def _read(self) -> Iterator[Chunk]:
        last, began = pb.Complete(), False
        while not self._closed.is_set():
            self._call = self._send(self._patience.left())
            if self._closed.is_set():  # by another thread, which had no call to cancel
                self._call.cancel()
            try:
                for message in self._call:
                    began = True
                    if message.HasField("chunk"):
                        yield Chunk.of(message.chunk)
                    else:
                        last = message.complete
                self._answer = Answer.of(last, dict(self._call.trailing_metadata() or ()))
                return
            except grpc.RpcError as raised:
                error = errors.of(raised, self._address)
                pause = None if began else self._patience.pause(error)
                if pause is None:
                    raise error from None
            self._closed.wait(pause)
        raise errors.cancelled()


class Client(Calls[Stream, Answer, ModelInfo, bool]):
    """One channel to a deployment's address: host:port or [IPv6]:port.

    tls: None speaks clear text. token: the caller's, where callers have tokens. timeout: seconds of each call
    that gives no other. patience: seconds that a request waits, in all, where the queue is full; 0: none. A
    context manager. Raises InvalidArgument.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: TLS | None = None,
        token: str = "",
        timeout: float | None = None,
        patience: float = 30.0,
    ) -> None:
        connection = Connection(address, tls, token)
        channel = (
            grpc.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)
            if tls
            else grpc.insecure_channel(address, CHANNEL_OPTIONS)
        )
        super().__init__(connection, channel, timeout, patience)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what still runs."""
        self._channel.close()

    def _stream(self, asked: pb.GenerateRequest, timeout: float | None) -> Stream:
        return Stream(self._sending(asked), self._patience(timeout), self._connection.address)

    def _whole(self, asked: pb.GenerateRequest, timeout: float | None) -> Answer:
        with self._stream(asked, timeout) as stream:
            for _ in stream:
                pass
            return stream.answer

    def _ask(self, method: Any, message: Any, read: Callable[[Any], Any], timeout: float | None) -> Any:
        try:
            return read(method(message, timeout=self._deadline(timeout), metadata=self._connection.metadata))
        except grpc.RpcError as raised:
            raise errors.of(raised, self._connection.address) from None
