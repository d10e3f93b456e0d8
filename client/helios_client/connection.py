"""What both clients need to reach a deployment: its address, certificates, the caller's token.

Called by `sync` and `aio`. Nothing is read from the environment or from files: the caller says where secrets
come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from helios_proto import addresses

from helios_client.errors import InvalidArgument


@dataclass(frozen=True)
class TLS:
    """ca: the certificates that may have issued the server's, in PEM; None: those that gRPC brings.
    certificate, key: the caller's own, where the server asks for one."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise InvalidArgument(f"tls.{missing}", "is missing", "give certificate and key, or neither")
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


@dataclass(frozen=True)
class Connection:
    """Where, and as whom. Raises InvalidArgument when one of them cannot be."""

    address: str
    tls: TLS | None
    token: str

    def __post_init__(self) -> None:
        try:
            addresses.check(self.address)
        except ValueError as error:
            problem, _, fix = str(error).partition("; ")
            raise InvalidArgument("address", problem, fix) from None
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise InvalidArgument("token", "is no token: no header can carry it", "give one word of ASCII")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()
