"""Profiling: what every exit of a candidate costs in quality, and every depth in time, memory and energy.

Called as `helios profile`, by a Job or by a person; `main(argv)` is the door. One run answers one question
(inspect, timing or quality) with one small document. It decides nothing and serves nobody.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `helios profile ARGV` and returns the exit status: 0, or 2 with a document that says what
    failed."""
    from helios_server.profile.command import run  # torch: kept out of `helios --help`

    return run(argv)
