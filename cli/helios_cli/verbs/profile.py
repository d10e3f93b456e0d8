"""`helios profile`: measures a model's exits, as a profiling Job does. All its options are the profile's."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    from helios_server import profile

    return profile.main(list(argv))
