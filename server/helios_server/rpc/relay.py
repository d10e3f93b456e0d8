"""The public port: relays connections to the gRPC server, so that each can be let go without losing a call.

gRPC's own shutdown sends GOAWAY and, at the same moment, stops accepting calls: a call which the client sent
before it saw the GOAWAY ends as CANCELLED, which no client may retry. The relay sends the GOAWAY, and a PING,
while the server still answers. When the PING has come back, every call that the client sent before it knew
has arrived, and is served or refused with UNAVAILABLE, which is retried on a new connection. Of HTTP/2 only
frame headers are read. TLS ends here, so that they can be.

Made by `rpc.server`. It must not know what the calls mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from helios_proto import addresses

from helios_server.rpc.listening import listen

logger = logging.getLogger(__name__)

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[tuple[object, asyncio.BaseProtocol]]]
"""Opens a connection to the gRPC server with a protocol of ours."""

HANDSHAKE_SECONDS, SHUTDOWN_SECONDS = 10.0, 2.0
"""For a client to prove who it is, and to say that it has heard the end."""
LINGER_SECONDS = 5.0
"""For a client to read the last bytes, once the server has closed."""
_READ_BYTES = 256 << 10
_MOST_UNSENT_BYTES = 64 << 10
"""Of one end; then the other is not read."""
_HEADER_BYTES = 9
_PING, _GOAWAY, _ACK = 0x6, 0x7, 0x1
_LAST_STREAM = 0x7FFFFFFF
"""In a first GOAWAY: no stream is refused yet, but open no more."""


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    """A frame of stream 0, the connection itself."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + bytes(4) + payload


class FrameCursor:
    """Follows frame boundaries in the bytes that the server sends."""

    def __init__(self) -> None:
        self._header = b""
        self._body_left = 0
        self._started = False

    @property
    def at_boundary(self) -> bool:
        """True when a frame of ours may be sent now: never before the server's first frame, its SETTINGS."""
        return self._started and not self._header and not self._body_left

    def advance(self, data: bytes) -> int | None:
        """Takes in `data`; returns the offset of the first frame boundary in it, if there is one."""
        position, first = 0, None
        while position < len(data):
            if self._body_left:
                taken = min(self._body_left, len(data) - position)
                self._body_left -= taken
            else:
                taken = min(_HEADER_BYTES - len(self._header), len(data) - position)
                self._header += data[position : position + taken]
                if len(self._header) == _HEADER_BYTES:
                    self._body_left = int.from_bytes(self._header[:3])
                    self._header = b""
            position += taken
            if not self._header and not self._body_left:
                self._started = True
                first = position if first is None else first
        return first


class Mark:
    """Watches a stream of bytes for one PING acknowledgement, wherever the chunks are cut."""

    def __init__(self) -> None:
        payload = os.urandom(8)
        self.ping = _frame(_PING, 0, payload)
        self._acknowledgement = _frame(_PING, _ACK, payload)
        self._tail = b""

    def end_in(self, data: bytes) -> int | None:
        """The offset in `data` just behind the acknowledgement, once it has come."""
        window = self._tail + data
        found = window.find(self._acknowledgement)
        before = len(self._tail)
        self._tail = window[1 - len(self._acknowledgement) :]
        return None if found < 0 else found + len(self._acknowledgement) - before


class _End(asyncio.Protocol):
    """One of the two ends of a relayed connection; when it cannot write, the other stops reading."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_MOST_UNSENT_BYTES)  # of TLS, it would be eight times that

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.other:
            self.other.close()

    def pause_writing(self) -> None:
        if self.other:
            self.other.pause()

    def resume_writing(self) -> None:
        if self.other:
            self.other.resume()

    def write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)

    def pause(self) -> None:
        if self._transport:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()


class _Server(_End):
    """The end towards the gRPC server."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self.other = client
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.from_server(data)

    def connection_lost(self, error: Exception | None) -> None:
        if error and self._transport:
            self._read_the_rest(self._transport.get_extra_info("socket").fileno())
        self._transport = None
        self._client.linger()

    def _read_the_rest(self, descriptor: int) -> None:
        """The server closes behind its last bytes, whatever a client still sends. asyncio gives a connection
        up when a write fails, although the end of an answer may wait to be read."""
        with contextlib.suppress(OSError):
            while data := os.read(descriptor, _READ_BYTES):
                self._client.from_server(data)


class _Client(_End):
    """The end towards the client, which also knows how to let it go.

    The farewell: GOAWAY and PING to the client; its acknowledgement is behind the last call that it sent, so
    a PING of our own to the server goes there; when that is acknowledged too, the server has read them all.
    """

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._relay = relay
        self._early = b""
        self._cursor = FrameCursor()
        self._over = False
        self._farewell = b""
        self._client_mark: Mark | None = None
        self._server_mark: Mark | None = None
        self.understood: asyncio.Future[None] = loop.create_future()
        """Done when no new call can arrive any more."""
        self.closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.clients.add(self)
        if self._relay.letting_go:  # it was being encrypted meanwhile
            self.let_go()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            server = await self._relay.connect(self)
        except OSError as error:
            logger.warning("the gRPC server refused a connection: %s", error)
            self.close()
            return
        if not self.is_open:
            server.close()
            return
        self.other = server
        server.write(self._early)
        self._early = b""
        self.resume()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._relay.clients.discard(self)
        for future in (self.understood, self.closed):
            if not future.done():
                future.set_result(None)

    def data_received(self, data: bytes) -> None:
        end = self._client_mark.end_in(data) if self._client_mark else None
        if self._over:
            if end is not None:
                self.close()
            return
        if end is not None:
            self._client_mark, self._server_mark = None, Mark()
            data = data[:end] + self._server_mark.ping + data[end:]
        if self.other:
            self.other.write(data)
        else:
            self._early += data
            self.pause()  # more than a read's worth has no place

    def linger(self) -> None:
        """The server has closed: so does this end, when the client has acknowledged a PING behind the last
        bytes. What it says meanwhile is dropped; to a closed socket, that would be answered by a reset, upon
        which a client may throw away what it has not read."""
        self._over = True
        self._is_understood()
        if not (self.is_open and self._cursor.at_boundary):
            self.close()
            return
        self._client_mark = Mark()
        self.write(self._client_mark.ping)
        self.resume()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.close)

    def _is_understood(self) -> None:
        if not self.understood.done():
            self.understood.set_result(None)

    def from_server(self, data: bytes) -> None:
        boundary = self._cursor.advance(data)
        if self._server_mark and self._server_mark.end_in(data) is not None:
            self._is_understood()
        if self._farewell and boundary is not None:
            data = data[:boundary] + self._farewell + data[boundary:]
            self._farewell = b""
        self.write(data)

    def let_go(self) -> None:
        """Says farewell at the next boundary between the server's frames."""
        if self._over:
            return
        self._client_mark = Mark()
        self._farewell = _frame(_GOAWAY, 0, struct.pack(">II", _LAST_STREAM, 0)) + self._client_mark.ping
        if self._cursor.at_boundary:
            self.write(self._farewell)
            self._farewell = b""


class Relay:
    """Listens on the public port. `connect` reaches the gRPC server behind it; tls: None for clear text."""

    def __init__(self, connect: Connect, tls: ssl.SSLContext | None = None) -> None:
        self._open = connect
        self._tls = tls
        self._listeners: list[asyncio.Server] = []
        self.clients: set[_Client] = set()
        self.letting_go = False

    async def listen(self, host: str, port: int) -> int:
        """Returns the port bound. OSError when it cannot be."""
        loop = asyncio.get_running_loop()
        sockets = listen(host, port)
        for each in sockets:
            listener = await loop.create_server(
                lambda: _Client(self),
                sock=each,
                backlog=addresses.BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS if self._tls else None,
            )
            self._listeners.append(listener)
        return addresses.port_of(sockets)

    async def connect(self, client: _Client) -> _Server:
        _, protocol = await self._open(lambda: _Server(client))
        return cast(_Server, protocol)

    async def let_go(self, patience_seconds: float) -> None:
        """Accepts no new connections and tells every client to open no more calls on its old one.

        Returns when all have understood, or after `patience_seconds` (a client may have vanished): from then
        on no new call can arrive, while the running ones go on.
        """
        self._stop_listening()
        self.letting_go = True
        for client in self.clients:
            client.let_go()
        await self._all([client.understood for client in self.clients], patience_seconds)

    async def close(self, patience_seconds: float) -> None:
        """Waits until the gRPC server has closed every connection and the last bytes are out."""
        self._stop_listening()
        await self._all([client.closed for client in self.clients], patience_seconds)
        for client in list(self.clients):
            client.close()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    async def _all(self, futures: list[asyncio.Future[None]], patience_seconds: float) -> None:
        if futures:
            await asyncio.wait(futures, timeout=patience_seconds)
