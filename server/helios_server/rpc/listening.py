"""Where the doors listen: sockets that hold little of what a client does not read.

Used by the relay and the HTTP server. Linux takes some megabytes for each connection before it says that a
client is slow; the doors hear of it after as much as a client may have on its way.
"""

from __future__ import annotations

import contextlib
import socket

from helios_proto import addresses

_MOST_UNSENT_BYTES = 64 << 10
"""In the kernel's hands, of one connection; what is sent and not acknowledged comes on top."""
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def listen(host: str, port: int) -> list[socket.socket]:
    """As `addresses.listen`. Connections have the sockets' own limit."""
    sockets = addresses.listen(host, port)
    for each in sockets:
        if _NOTSENT_LOWAT is not None:
            with contextlib.suppress(OSError):  # a kernel without it
                each.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
    return sockets
