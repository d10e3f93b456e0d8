"""Hosts and ports of both families: how an address is written, read and listened on.

Used by the servers, by what probes and dials them, and by clients. An IPv6 address stands in brackets where a
port follows (`[::1]:8033`) and bare where it is a host. It must import nothing but the standard library.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

ANY = "::"
"""Every address of the machine, of both families."""
BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has a limit of its own."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bare(host: str) -> str:
    """A host without the brackets that it may have been written with."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def join(host: str, port: int) -> str:
    """host:port, as a client dials it."""
    host = bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """The other way round. ValueError says what is wrong: an IPv6 address without brackets could end
    anywhere."""
    host, colon, port = address.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{address} does not say where its port begins; write [ADDRESS]:PORT")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{address} is no HOST:PORT")
    return bare(host), int(port)


def check(target: str) -> str:
    """What gRPC is to dial, as it is. ValueError for an IPv6 address without brackets: it takes the port for
    a part of it."""
    try:
        ipaddress.IPv6Address(target)
    except ValueError:
        return target
    raise ValueError(f"{target} does not say where its port begins; write [ADDRESS]:PORT")


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(bare(host)).is_loopback
    except ValueError:
        return False


def loopback() -> str:
    """The loopback address that this machine has: 127.0.0.1, or ::1 where there is no IPv4."""
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return "127.0.0.1"
    except OSError:
        return "::1"


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for all that `host` stands for, on one port; port 0 takes a free one.

    `::` takes both families with one socket, and IPv4 alone where the kernel has no IPv6. OSError when an
    address cannot be bound; nothing is then. A name's addresses of a family that is not here are left out.
    """
    host = bare(host)
    if host == ANY and socket.has_dualstack_ipv6():
        return [_server(socket.AF_INET6, (ANY, port), both=True)]
    found = socket.getaddrinfo("0.0.0.0" if host == ANY else host, port, type=socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, at in dict.fromkeys((family, at) for family, _, _, _, at in found):
        taken = port_of(sockets) if sockets else port
        try:
            sockets.append(_server(family, (at[0], taken, *at[2:])))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                for each in sockets:
                    each.close()
                raise
            missing = error
    if not sockets and missing is not None:
        raise missing
    return sockets


def port_of(sockets: list[socket.socket]) -> int:
    """The port that all of them listen on."""
    return int(sockets[0].getsockname()[1])


def _server(family: int, at: tuple[object, ...], both: bool = False) -> socket.socket:
    try:
        return socket.create_server(at, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:  # the library's words name the address again
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None
