"""A client that begins messages and does not end them: as much of each as the server takes in.

HTTP/2 by hand, for a gRPC client keeps a copy of each message that it sends.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SIZE = 0x4
_FRAME = 16384


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _headers(path: str) -> bytes:
    """Literals that no table keeps."""
    pairs = (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "pod"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    )  # fmt: skip
    words = (
        bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode() for name, value in pairs
    )
    return b"".join(words)


@dataclass
class Flood:
    """One connection. path: of the method; size: bytes of each message, of which the last one never comes."""

    port: int
    path: str
    size: int
    sent: dict[int, int] = field(default_factory=dict)
    """Bytes of a stream that the server took in."""
    ended: set[int] = field(default_factory=set)
    """Streams that it answered to the end."""
    _windows: dict[int, int] = field(default_factory=dict)
    _first_window: int = 65535

    async def run(self, streams: int, until: asyncio.Event) -> None:
        """Opens so many, and sends what may be sent until then."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(_PREFACE + _frame(_SETTINGS, 0, 0))
        self._windows[0] = 65535
        self._content = struct.pack(">BI", 0, self.size) + bytes(self.size - 1)
        opened = range(1, 2 * streams, 2)
        listening = asyncio.create_task(self._listen(reader))
        for stream in opened:
            self.sent[stream], self._windows[stream] = 0, self._first_window
            self._writer.write(_frame(_HEADERS, _END_HEADERS, stream, _headers(self.path)))
        while not until.is_set():
            for stream in opened:
                self._send(stream)
            await self._writer.drain()
            await asyncio.sleep(0.01)
        listening.cancel()
        self._writer.close()

    def _send(self, stream: int) -> None:
        while stream not in self.ended:
            at = self.sent[stream]
            size = min(_FRAME, self._windows[stream], self._windows[0], len(self._content) - at)
            if size <= 0:
                return
            self._writer.write(_frame(_DATA, 0, stream, self._content[at : at + size]))
            self.sent[stream] += size
            self._windows[stream] -= size
            self._windows[0] -= size

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            header = await reader.readexactly(9)
            kind, flags, stream = header[3], header[4], int.from_bytes(header[5:]) & 0x7FFFFFFF
            payload = await reader.readexactly(int.from_bytes(header[:3]))
            if kind == _SETTINGS and not flags & _ACK:
                self._settle(payload)
            elif kind == _WINDOW:
                self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload)
            elif kind == _PING and not flags & _ACK:
                self._writer.write(_frame(_PING, _ACK, 0, payload))
            if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
                self.ended.add(stream)

    def _settle(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                for stream in self.sent:
                    self._windows[stream] += value - self._first_window
                self._first_window = value
        self._writer.write(_frame(_SETTINGS, _ACK, 0))
