"""Work that a thread does and then ends. Used by the threads that read layers beside the engine's,
and by `bench.engine`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def briefly(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, in a thread that is named as the caller's is.

    OpenMP keeps the team of every thread that had one for as long as the thread lives; while all have more
    threads than there are processors, they sleep at a barrier instead of watching it, and a step has some two
    hundred.
    """
    with ThreadPoolExecutor(1, thread_name_prefix=threading.current_thread().name) as own:
        return own.submit(work, *args, **kwargs).result()
