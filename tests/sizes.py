"""How many examples a property test takes: fewer for `make check`, many more for `make test-long`.

HELIOS_HYPOTHESIS=small and HELIOS_LONG=1 choose; without them the usual number holds, that of `make test`. A
test that sets `max_examples` itself asks here, so that it scales with the others.
"""

from __future__ import annotations

import os

SMALL = os.environ.get("HELIOS_HYPOTHESIS") == "small"
LONG = os.environ.get("HELIOS_LONG") == "1"

_SMALL_SHARE = 5
_LONG_TIMES = 10
_HEAVY_TENTHS = 4


def examples(usual: int, long: int | None = None, *, heavy: bool = False) -> int:
    """`long`: what to take of it when ten times the usual number is not enough. `heavy`: its examples take
    long, or each of many kernels is asked for them; `make test` is content with four tenths."""
    if LONG:
        return long or usual * _LONG_TIMES
    if SMALL:
        return max(usual // _SMALL_SHARE, 5)
    return usual * _HEAVY_TENTHS // 10 if heavy else usual
