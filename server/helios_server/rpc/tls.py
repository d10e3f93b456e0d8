"""The certificate that the doors for applications show, and whose certificates they accept.

Made by `serve` from files, given to the doors by `rpc.server`. Files that are rotated are read again: new
connections get the new certificate, those that stand keep theirs. A rotation to files that cannot be used
changes nothing and is said. It must never log what a key holds.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from helios_server.errors import HeliosError, InvalidRequest
from helios_server.rpc.watched import Watched

if TYPE_CHECKING:
    from cryptography import x509

logger = logging.getLogger(__name__)

GRPC, HTTP = ("h2",), ("http/1.1",)
"""What a door speaks inside TLS, as ALPN names it."""
_PEM = "Give a file in PEM"
_CERTIFICATE, _KEY, _CLIENT_CA = "tls-cert", "tls-key", "tls-client-ca"


@dataclass(frozen=True)
class TlsFiles:
    """In PEM. certificate: the server's, with what lies between it and its CA; client_ca: of those that
    clients' certificates must come from, None: clients need none."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)


class Certificates:
    """InvalidRequest names the file that is missing, unreadable, no match, encrypted or expired."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._watched = Watched(lambda: files.all)
        self._newest, self.expires = _read(files)

    expires: datetime
    """When the certificate in use does."""

    def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        """For a listener that stays: each connection gets what is the newest when it comes."""
        first = self._newest[protocols]

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self._newest[protocols]

        first.sni_callback = choose
        return first

    def look(self) -> bool | None:
        """Reads files that were replaced. True: they are in use; False: the old ones stay; None: no news."""
        if not self._watched.changed():
            return None
        try:
            self._newest, self.expires = _read(self._files)
        except HeliosError as error:
            logger.error("the certificate in use stays, the new one cannot be used: %s", error)
            return False
        logger.info("new connections get a new certificate, valid until %s", self.expires.isoformat())
        return True


def _read(files: TlsFiles) -> tuple[Mapping[tuple[str, ...], ssl.SSLContext], datetime]:
    """A context for what each door speaks, and when the certificate expires."""
    now = datetime.now(UTC)
    own = _certificates(_CERTIFICATE, files.certificate)[0].not_valid_after_utc
    if own <= now:
        raise _expired(_CERTIFICATE, files.certificate, own)
    _content(_KEY, files.key)
    if files.client_ca:
        last = max(each.not_valid_after_utc for each in _certificates(_CLIENT_CA, files.client_ca))
        if last <= now:
            raise _expired(_CLIENT_CA, files.client_ca, last)
    return {protocols: _context(files, protocols) for protocols in (GRPC, HTTP)}, own


def _context(files: TlsFiles, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(protocols))
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password(files.key))
    except ssl.SSLError as error:
        raise _unfit(files, error) from None
    except OSError as error:  # it was there a moment ago
        raise InvalidRequest(_KEY, f"{files.key} cannot be read ({error.strerror})", _PEM) from None
    if files.client_ca:
        # Nobody comes in by an old session, which would be asked for no certificate: TLS 1.3 without tickets.
        context.minimum_version, context.num_tickets = ssl.TLSVersion.TLSv1_3, 0
        _trust(context, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:  # of OpenSSL as well, which reads more of the file than its certificates
        problem = f"{path} cannot be used ({error.strerror or error})"
        raise InvalidRequest(_CLIENT_CA, problem, "Give certificates in PEM, and nothing else") from None


def _no_password(key: Path) -> Callable[[], str]:
    """Asked only for an encrypted key: without it OpenSSL asks whoever sits at the terminal."""

    def refuse() -> str:
        raise InvalidRequest(_KEY, f"{key} is encrypted", "Give the key without a passphrase")

    return refuse


def _unfit(files: TlsFiles, error: ssl.SSLError) -> InvalidRequest:
    if error.reason == "KEY_VALUES_MISMATCH":
        problem = f"{files.key} is not the key of {files.certificate}"
        return InvalidRequest(_KEY, problem, "Give the two that were made together")
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        problem = f"{files.certificate} is too weak ({error.reason})"
        return InvalidRequest(_CERTIFICATE, problem, "Make one with a longer key and SHA-256")
    return InvalidRequest(_KEY, f"{files.key} holds no private key that can be read", _PEM)


def _certificates(field: str, path: Path) -> list[x509.Certificate]:
    """At least one."""
    from cryptography import x509  # 8 MiB, which pods that speak clear text do without

    try:
        return x509.load_pem_x509_certificates(_content(field, path))
    except ValueError:
        raise InvalidRequest(field, f"{path} holds no certificate that can be read", _PEM) from None


def _content(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(field, f"{path} cannot be read ({error.strerror})", _PEM) from None


def _expired(field: str, path: Path, when: datetime) -> InvalidRequest:
    return InvalidRequest(field, f"{path} expired at {when.isoformat()}", "Renew it")
