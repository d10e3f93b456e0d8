"""The address that stays: a TCP forwarder in front of whichever pods serve now, as a ClusterIP Service is.

New connections go to the ready pods of the routed revision in turn; connections that stand stay with their
pod until either side ends them. It never looks into the bytes, and decides nothing: the runtime tells it
where pods are, and what to say while none is ready.

Sockets are read and written as they are: asyncio's streams give a connection up when a write fails, although
the end of an answer may wait to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import resource
import socket
import struct
import termios
from collections.abc import Callable, Sequence

from helios_proto import addresses

from helios_operator.errors import AddressInUseError

_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 2.0
_RETRY_SECONDS = 0.1
_LAST_LOOKS, _LAST_LOOK_SECONDS = 200, 0.01
"""At whether a client has what was sent to it, before its connection is broken."""
_LINGER_SECONDS = 2.0
"""For a client that no pod took to ask, and to read the answer."""

Backends = Callable[[], Sequence[tuple[str, int]]]


class Front:
    """Listens from `open` to `close`. While no pod is ready a connection waits, at most `patience` seconds,
    and then has `refusal` for an answer. `option`: what says where it listens; `zero`: how that says to do
    without a taken port."""

    def __init__(
        self,
        backends: Backends,
        *,
        patience: float = 15.0,
        most_waiting: int = 256,
        option: str = "port",
        zero: str = "0: any free port",
        refusal: bytes = b"",
    ) -> None:
        self._refusal = refusal
        self._option, self._zero = option, zero
        self._backends = backends
        self._patience = patience
        self._most_waiting = most_waiting
        self._address = ""
        self._listening: list[asyncio.Task[None]] = []
        self._turn = 0
        self._waiting = 0
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        """Binds; port 0 takes a free one. AddressInUseError when somebody else has it."""
        _allow_open_files()
        try:
            sockets = addresses.listen(host, port)
            self._address = addresses.join(*sockets[0].getsockname()[:2])
            for each in sockets:
                each.setblocking(False)
        except OSError as error:
            reason, fix = f"cannot be bound ({error.strerror})", "give an address of this machine with --host"
            if error.errno == errno.EADDRINUSE:
                reason = "is in use"
                fix = f"stop what listens there, or choose another with --{self._option} ({self._zero})"
            raise AddressInUseError(self._option, f"{addresses.join(host, port)} {reason}", fix) from None
        self._listening = [asyncio.create_task(self._listen(each)) for each in sockets]

    @property
    def address(self) -> str:
        """host:port, as clients use it; "" before `open`."""
        return self._address

    @property
    def connections(self) -> int:
        """Connections that stand or wait."""
        return len(self._open)

    async def close(self) -> None:
        """Stops listening and cuts what still stands."""
        await _end(self._listening)
        await _end(self._open)

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError:  # no descriptor is left, or the client went at once
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                task = asyncio.create_task(self._serve(client))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _serve(self, client: socket.socket) -> None:
        with client:
            pod = await self._connect()
            if pod is not None:
                with pod:
                    await _forward(client, pod)
            elif self._refusal:
                await _refuse(client, self._refusal)
            # else it is closed at once: the client's own retries take over

    async def _connect(self) -> socket.socket | None:
        """A connection to the next ready pod; None when none came up in time or too many wait already."""
        if connection := await self._try_all():
            return connection
        if self._waiting >= self._most_waiting:
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    await asyncio.sleep(_RETRY_SECONDS)
                    if connection := await self._try_all():
                        return connection
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1

    async def _try_all(self) -> socket.socket | None:
        for _ in range(len(self._backends())):
            if connection := await self._try_next():
                return connection
        return None

    async def _try_next(self) -> socket.socket | None:
        backends = self._backends()
        if not backends:
            return None
        self._turn += 1
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await _connected(*backends[self._turn % len(backends)])
        except (OSError, TimeoutError):
            return None  # it ended a moment ago; the next one, or the next round


def _allow_open_files() -> None:
    """As many as the system allows, for the pods that this process starts too: a connection takes two here
    and three there, and a shell's own limit is at some 300 of them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # no limit at all is refused by some systems
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _connected(host: str, port: int) -> socket.socket:
    """host: a number, so that nobody is asked for it."""
    loop = asyncio.get_running_loop()
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    family, kind, _, _, address = found[0]
    pod = socket.socket(family, kind)
    try:
        pod.setblocking(False)
        await loop.sock_connect(pod, address)
    except BaseException:
        pod.close()
        raise
    return pod


async def _forward(client: socket.socket, pod: socket.socket) -> None:
    """Copies both ways until both sides have ended, or one broke. A pod that takes no more may still have
    something to say, and a client may not have read it."""
    for each in (client, pod):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    asking = asyncio.create_task(_ask(client, pod))
    try:
        await _copy(pod, client)
        await asking
    except OSError:
        await _break(client)  # what one side broke, the other must see broken
    finally:
        await _end([asking])


async def _refuse(client: socket.socket, words: bytes) -> None:
    """Whoever asks nothing is told nothing. What is sent is dropped: unread, it would have the answer
    reset."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            if not await loop.sock_recv(client, _CHUNK_BYTES):
                return
        async with asyncio.timeout(_LINGER_SECONDS):
            await loop.sock_sendall(client, words)
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, _CHUNK_BYTES):
                pass


async def _ask(client: socket.socket, pod: socket.socket) -> None:
    """What the client sends when the pod has gone is dropped: unread, it would have the answer reset."""
    loop, is_taken = asyncio.get_running_loop(), True
    try:
        while data := await loop.sock_recv(client, _CHUNK_BYTES):
            try:
                if is_taken:
                    await loop.sock_sendall(pod, data)
            except OSError:
                is_taken = False
    except OSError:  # nobody is there to be answered
        _shut(pod, socket.SHUT_RDWR)
        return
    _shut(pod, socket.SHUT_WR)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK_BYTES):
        await loop.sock_sendall(target, data)
    _shut(target, socket.SHUT_WR)


def _shut(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)


async def _break(end: socket.socket) -> None:
    """Its close is a reset, which drops what is on its way: that has some time to arrive."""
    with contextlib.suppress(OSError):
        for _ in range(_LAST_LOOKS):
            if not fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)).strip(b"\0"):
                break
            await asyncio.sleep(_LAST_LOOK_SECONDS)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _end(tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
