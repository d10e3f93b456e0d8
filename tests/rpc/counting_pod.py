"""`helios serve` that says, at SIGUSR1, how many asyncio tasks it has, and how many objects no collection
looks at: in `tasks` and `frozen` beside its ports file.

Run by `pods.child`, for tests that look for what is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

from helios_server import serve

_make_loop = asyncio.new_event_loop


def main(arguments: list[str]) -> int:
    file = Path(arguments[arguments.index("--ports-file") + 1]).with_name("tasks")
    loops: list[asyncio.AbstractEventLoop] = []

    def remembered() -> asyncio.AbstractEventLoop:
        loops.append(_make_loop())
        return loops[-1]

    def tell(*_: object) -> None:
        file.with_name("frozen").write_text(str(gc.get_freeze_count()))
        partial = file.with_name(f".tasks.{os.getpid()}")
        partial.write_text(str(len(asyncio.all_tasks(loops[0]))))
        partial.replace(file)

    asyncio.events.new_event_loop = remembered
    signal.signal(signal.SIGUSR1, tell)
    return serve.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
