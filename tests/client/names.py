"""A name server for the tests: answers one name by as many addresses as it is told, as a cluster's DNS does
for a headless Service."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

_HEADER = struct.Struct("!6H")
_IS_ANSWER = 0x8580
"""Response, authoritative, recursion wanted and available."""
_A, _IN, _SECONDS = 1, 1, 0
_TO_THE_NAME = 0xC00C
"""A pointer to the name that was asked."""


class Names(asyncio.DatagramProtocol):
    """`addresses`: what is answered from now on, whatever the name; nobody keeps an answer."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[_HEADER.size : data.index(b"\0", _HEADER.size) + 5]
        (kind,) = struct.unpack_from("!H", question, len(question) - 4)
        listed = self.addresses if kind == _A else []
        header = _HEADER.pack(struct.unpack_from("!H", data)[0], _IS_ANSWER, 1, len(listed), 0, 0)
        self._transport.sendto(header + question + b"".join(map(_record, listed)), addr)


def _record(address: str) -> bytes:
    return struct.pack("!HHHIH", _TO_THE_NAME, _A, _IN, _SECONDS, 4) + socket.inet_aton(address)


@asynccontextmanager
async def names(*addresses: str) -> AsyncIterator[tuple[Names, str]]:
    """The server, and its own address."""
    served = Names(addresses)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: served, local_addr=("127.0.0.1", 0)
    )
    try:
        yield served, "{}:{}".format(*transport.get_extra_info("sockname"))
    finally:
        transport.close()
