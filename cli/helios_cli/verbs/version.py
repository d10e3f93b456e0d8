"""`helios version`: of HELIOS, and of what it runs on, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import helios_proto

from helios_cli.arguments import Parser
from helios_cli.output import columns, show

_PACKAGES = ("torch", "transformers", "grpcio", "protobuf", "kopf", "kubernetes")


@dataclass(frozen=True)
class VersionView:
    """`packages`: None for what is not installed."""

    helios: str
    python: str
    platform: str
    packages: dict[str, str | None]


def run(argv: Sequence[str]) -> int:
    options = Parser("version", "Versions.").with_output().parse_args(argv)
    packages = {name: _installed(name) for name in _PACKAGES}
    view = VersionView(helios_proto.__version__, platform.python_version(), platform.platform(), packages)
    show(view, options.output, _table)
    return 0


def _table(view: VersionView) -> None:
    rows = [
        ("helios", view.helios),
        ("python", view.python),
        ("platform", view.platform),
        *view.packages.items(),
    ]
    print(columns(("WHAT", "VERSION"), rows))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
