"""One gRPC port: a relay that the world connects to, and behind it the gRPC server on a private address.

Made twice by `rpc.server`, for applications and for the operator. It must not know which services it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from helios_proto import addresses

from helios_server.rpc.bodies import MOST_BYTES
from helios_server.rpc.relay import Relay

CONNECTION_AGE_SECONDS = 300.0
"""After this the server asks a client to connect anew, so that load spreads over pods, those that came
meanwhile too; running calls go on."""
_WINDOW_BYTES = 16 << 10
"""Of a message that nobody has asked for yet: what gRPC holds of a call before there is a place for it."""
_ALL = 2**31 - 1
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),  # else it widens that to megabytes where the network is quick
    ("grpc.http2.max_ping_strikes", 2),  # pings beyond what is allowed below; then the connection goes
    ("grpc.keepalive_time_ms", 60_000),  # a client that vanished without a word frees its rows after this
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # clients may ask this often, too
    # Calls that Python has not taken up yet: gRPC's own way is to end them as CANCELLED, at random from 1,000
    # on and each after 30 seconds. Here they wait; the engine's queue refuses, and says when to come back.
    ("grpc.server.max_pending_requests", _ALL),
    ("grpc.server.max_pending_requests_hard_limit", _ALL),
    ("grpc.server_max_unrequested_time_in_server", _ALL),
)
_PATIENCE_SECONDS = 5.0
"""For a client to acknowledge that it is let go, and for last bytes; one that vanished must not hold up the
rest."""


class Door:
    """`server` takes the services before `open`. tls: of the relay, where it ends; None for clear text."""

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        tls: ssl.SSLContext | None = None,
        age_seconds: float = CONNECTION_AGE_SECONDS,
    ) -> None:
        age = ("grpc.max_connection_age_ms", round(age_seconds * 1000))
        self.server = grpc.aio.server(interceptors=interceptors, options=[*_OPTIONS, age])
        self._relay = Relay(self._connect, tls)
        self._private = ""

    async def open(self, host: str, port: int) -> int:
        """Returns the port bound. OSError when it cannot be."""
        self._private = _private_address()
        private_port = self.server.add_insecure_port(self._private)
        if not self._private.startswith("unix-abstract:"):
            self._private = addresses.join(addresses.loopback(), private_port)
        await self.server.start()
        return await self._relay.listen(host, port)

    async def let_go(self, *services: ServiceDescriptor) -> None:
        """Lets no new call arrive: returns when every call that a client has sent is in the hands of its
        service.

        They must refuse calls by then, because each of their methods is asked once, with an empty message.
        """
        await self._relay.let_go(_PATIENCE_SECONDS)
        methods = [f"/{each.full_name}/{method.name}" for each in services for method in each.methods]
        async with grpc.aio.insecure_channel(self._private, [("grpc.enable_http_proxy", 0)]) as channel:
            await asyncio.gather(*(_ask(channel, method) for method in methods))

    async def close(self, grace_seconds: float) -> None:
        """Ends what still runs after `grace_seconds`, and returns when the last bytes are out."""
        await self.server.stop(grace_seconds)
        await self._relay.close(_PATIENCE_SECONDS)

    async def _connect(
        self, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[object, asyncio.BaseProtocol]:
        loop = asyncio.get_running_loop()
        if self._private.startswith("unix-abstract:"):
            return await loop.create_unix_connection(protocol, "\0" + self._private.partition(":")[2])
        return await loop.create_connection(protocol, *addresses.split(self._private))


async def _ask(channel: grpc.aio.Channel, method: str) -> None:
    """gRPC hands out the calls of a method in the order of arrival: when this one has ended, all before it
    are out. On the wire a single message is also a stream that has ended, so every kind of method answers."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        ask: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        async for _ in ask(b""):
            pass


def _private_address() -> str:
    """A name without a file where the system has such (so that a read-only root is no hindrance), else
    loopback."""
    if sys.platform == "linux":
        return f"unix-abstract:helios-{os.getpid()}-{uuid.uuid4().hex}"
    return addresses.join(addresses.loopback(), 0)
