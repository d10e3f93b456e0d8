"""`helios serve`: one serving process, as a pod runs it. All its options are the server's."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    from helios_server import serve

    return serve.main(list(argv))
