"""Values of arguments that more is asked of than argparse asks.

Called by the parser of `serve`. ArgumentTypeError says what is expected.
"""

from __future__ import annotations

import argparse


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; give 0 to 65535")
    return number


def http_port(text: str) -> int | None:
    """None: no HTTP."""
    return 0 if text == "free" else port(text) or None


def tokens(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is no number of tokens; give 1 or more")
    return number
