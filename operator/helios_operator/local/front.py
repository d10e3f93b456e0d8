"""The address that stays: a TCP forwarder in front of whichever pods serve now, as a ClusterIP Service is.

New connections go to the ready pods of the routed revision in turn; connections that stand stay with their
pod until either side ends them. It never looks into the bytes, and decides nothing: the runtime tells it
where pods are.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
from collections.abc import Callable, Sequence

from helios_proto import addresses

from helios_operator.errors import AddressInUseError

_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 2.0
_RETRY_SECONDS = 0.1

Backends = Callable[[], Sequence[tuple[str, int]]]


class Front:
    """Listens from `open` to `close`. While no pod is ready a connection waits, at most `patience`
    seconds. `option`: what says where it listens; `zero`: how that says to do without a taken port."""

    def __init__(
        self,
        backends: Backends,
        *,
        patience: float = 15.0,
        most_waiting: int = 256,
        option: str = "port",
        zero: str = "0: any free port",
    ) -> None:
        self._option, self._zero = option, zero
        self._backends = backends
        self._patience = patience
        self._most_waiting = most_waiting
        self._address = ""
        self._servers: list[asyncio.Server] = []
        self._turn = 0
        self._waiting = 0
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        """Binds; port 0 takes a free one. AddressInUseError when somebody else has it."""
        _allow_open_files()
        try:
            sockets = addresses.listen(host, port)
            self._address = addresses.join(*sockets[0].getsockname()[:2])
            self._servers = [
                await asyncio.start_server(self._accept, sock=each, backlog=addresses.BACKLOG)
                for each in sockets
            ]
        except OSError as error:
            reason, fix = f"cannot be bound ({error.strerror})", "give an address of this machine with --host"
            if error.errno == errno.EADDRINUSE:
                reason = "is in use"
                fix = f"stop what listens there, or choose another with --{self._option} ({self._zero})"
            raise AddressInUseError(self._option, f"{addresses.join(host, port)} {reason}", fix) from None

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
        for server in self._servers:
            server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pod = await self._connect()
            if pod is None:
                writer.transport.abort()  # refused at once: the client's own retries take over
            else:
                await _forward((reader, writer), pod)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
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

    async def _try_all(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self._backends())):
            if connection := await self._try_next():
                return connection
        return None

    async def _try_next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        backends = self._backends()
        if not backends:
            return None
        self._turn += 1
        host, port = backends[self._turn % len(backends)]
        try:
            return await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_SECONDS)
        except (OSError, TimeoutError):
            return None  # it ended a moment ago; the next one, or the next round


def _allow_open_files() -> None:
    """As many as the system allows, for the pods that this process starts too: a connection takes two here
    and three there, and a shell's own limit is at some 300 of them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # no limit at all is refused by some systems
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _forward(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    pod: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Copies both ways until both sides have ended, or one broke."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(client[0], pod[1]))
            group.create_task(_copy(pod[0], client[1]))
    except* OSError:
        client[1].transport.abort()  # what one side broke, the other must see broken
    finally:
        pod[1].close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK_BYTES):
        target.write(data)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()
