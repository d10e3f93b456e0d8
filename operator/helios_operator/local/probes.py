"""One HTTP GET on the loopback, as a kubelet's probe: a status code, or nothing in time.

Called by the pods. The pods' metrics port answers /readyz and /healthz.
"""

from __future__ import annotations

import asyncio

from helios_proto import addresses


async def probe(host: str, port: int, path: str, timeout: float) -> int | None:
    """The status code; None when there was no answer in `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                at = addresses.join(host, port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    words = status_line.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
