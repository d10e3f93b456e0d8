"""Arguments of `helios serve` that stand alone, and what words are read as. Used by `serve` alone."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_access_arguments(group: argparse._ArgumentGroup) -> None:
    """Who may call, and how."""
    group.add_argument(
        "--tls-cert",
        type=Path,
        metavar="FILE",
        help="use TLS on gRPC and HTTP with this certificate, in PEM; read again when it changes",
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert, in PEM")
    group.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="clients need a certificate of these CAs, in PEM"
    )
    group.add_argument(
        "--auth-tokens",
        type=Path,
        metavar="DIR",
        help="a file for each caller: its name, and its bearer token",
    )
    group.add_argument(
        "--no-reflection", dest="reflection", action="store_false", help="describe no services to clients"
    )


def port(text: str) -> int:
    """0: a free one."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; give 0 to 65535")
    return number


def http_port(text: str) -> int | None:
    """None: no HTTP."""
    return 0 if text == "free" else port(text) or None


def tokens(text: str) -> int:
    """1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is no number of tokens; give 1 or more")
    return number
