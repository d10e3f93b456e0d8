"""What the process holds and what it may hold, from the operating system; and giving pages back to it.

Called by `memory.py` and by the KV pool. Linux in its details: elsewhere the figures fall back to what
Python's `resource` knows, and trimming does nothing.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
import sys
from functools import cache
from pathlib import Path

import torch

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt(3)
_LARGE_BYTES = 2 << 20
"""A block's logits, and what else a step or an audit needs of that size, come and go by themselves."""
_HUGE_PAGE = 2 << 20
"""Of a CPU's memory: reading many places of a few of these takes fewer look-ups than of many small ones."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def anonymous_bytes() -> int:
    """Memory of the process that no file backs: what counts against a limit and cannot be dropped."""
    found = _status_bytes("RssAnon")
    if found is None:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found


def page_table_bytes() -> int:
    """What the kernel holds to map this process; it counts against a limit as well.

    0 where it is not told.
    """
    return _status_bytes("VmPTE") or 0


def limit_bytes() -> int:
    """The container's memory limit, or the machine's memory where there is none."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for path in _CGROUP_LIMITS if (limit := _read_limit(Path(path))))])


def share_one_heap() -> None:
    """Call before any thread allocates: glibc gives each thread a heap of its own otherwise, and `trim` gives
    back the end of the first one only, so that a model exchanged in place would leave tens of MiB behind.

    Large blocks are kept out of that heap: a few bytes that stay where one was freed make the place too small
    for the next, and an audit's blocks would pile up to more than a hundred MiB.
    """
    libc = _libc()
    if libc is not None and hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def trim() -> None:
    """Asks the allocator to give freed memory back to the system: weights of dropped layers, loading's
    temporaries.
    """
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


class LazyTensor:
    """A CPU tensor that takes memory only where it was written; unwritten elements are zero.

    rows: that are in use, see `use`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, rows: int) -> None:
        self._nbytes = math.prod(shape) * dtype.itemsize
        # Not torch.zeros, which writes everything, nor torch.empty, whose memory may hold what was there
        # before.
        self._map = mmap.mmap(-1, self._nbytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._start = -torch.frombuffer(self._map, dtype=torch.uint8).data_ptr() % _HUGE_PAGE
        self._row_bytes = self._nbytes // shape[0] if shape[0] else 0
        flat = torch.frombuffer(self._map, dtype=dtype, count=math.prod(shape), offset=self._start)
        self.tensor = flat.view(shape)
        self.use(rows)

    def use(self, rows: int) -> None:
        """Only the first `rows` rows are in use. Memory of the others goes back to the system, they become
        zero. The system may take huge pages for those in use, never one that reaches beyond them: more than
        all of them is never held.
        """
        used = rows * self._row_bytes
        huge = used // _HUGE_PAGE * _HUGE_PAGE
        self._advise("MADV_HUGEPAGE", 0, huge)
        self._advise("MADV_NOHUGEPAGE", huge, self._nbytes)
        self._advise("MADV_DONTNEED", -(-used // mmap.PAGESIZE) * mmap.PAGESIZE, self._nbytes)

    def _advise(self, name: str, start: int, stop: int) -> None:
        advice = getattr(mmap, name, None)
        if advice is None or stop <= start:
            return
        try:
            self._map.madvise(advice, self._start + start, stop - start)
        except OSError:
            if name == "MADV_DONTNEED":
                raise  # about huge pages a kernel may know nothing


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _status_bytes(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields[name].split()[0]) * 1024
