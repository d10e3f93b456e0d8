"""A hard memory limit of the operating system for one child process; needs root."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_NOT_RUN = "not run: needs root and a writable memory cgroup"


@contextmanager
def hard_limit(nbytes: int) -> Iterator[Path]:
    """Yields the file to which a process writes its id to fall under the limit.

    Skips the test where that is denied.
    """
    if os.geteuid() != 0:
        pytest.skip(_NOT_RUN)
    old = (_ROOT / "memory").is_dir()
    group = (_ROOT / "memory" if old else _ROOT) / f"helios-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(nbytes))
        if not old:
            (group / "memory.swap.max").write_text("0")
    except OSError:
        if group.is_dir():
            group.rmdir()
        pytest.skip(_NOT_RUN)
    try:
        yield group / "cgroup.procs"
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """A group can go when the kernel has cleared away its last process."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.05)
