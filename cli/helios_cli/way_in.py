"""How a verb comes in where a certificate or a token is asked for: its options, and the client they make.

Used by the verbs that speak to what applications use. A token comes from a file or the environment, never
from the command line, which others on the machine can read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from helios_client import TLS, Client
from helios_client.errors import InvalidArgument
from helios_operator.errors import OperatorError

_TOKEN = "HELIOS_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for option, what in (
        ("--tls-ca", "use TLS; CAs of the server's certificate, in PEM"),
        ("--tls-cert", "client certificate, in PEM, if the server requires one"),
        ("--tls-key", "private key of --tls-cert, in PEM"),
        ("--token-file", f"file with the caller's token (default: the variable {_TOKEN})"),
    ):
        parser.add_argument(option, type=Path, metavar="FILE", help=what)


def client(address: str, options: Any) -> Client:
    """OperatorError names what cannot be used: an option, a file that cannot be read, the address."""
    ca, certificate, key = (_content(options, name) for name in ("tls_ca", "tls_cert", "tls_key"))
    if (certificate is None) != (key is None) or (certificate and not ca):
        missing = "tls-ca" if certificate and key else "tls-key" if certificate else "tls-cert"
        raise OperatorError(missing, "is missing", "give --tls-ca, --tls-cert and --tls-key")
    given = _content(options, "token_file")
    token = os.environ.get(_TOKEN, "") if given is None else given.decode(errors="replace").strip()
    try:
        return Client(address, tls=TLS(ca, certificate, key) if ca else None, token=token)
    except InvalidArgument as error:
        field = error.field if error.field != "token" else "token-file" if given else _TOKEN
        raise OperatorError(field, error.problem, error.fix) from None


def _content(options: Any, name: str) -> bytes | None:
    path: Path | None = getattr(options, name)
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror})"
        raise OperatorError(name.replace("_", "-"), problem, "give a readable file") from None
