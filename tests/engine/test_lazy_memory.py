"""A slab's memory: taken where it is written, in huge pages at most as far as rows are in use, and given
back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helios_server.engine.host_memory import LazyTensor

from tests.engine.cgroups import hard_limit

KIB = 1024
HUGE = 2 * KIB * KIB
ROW = 12 * KIB
SMAPS = Path("/proc/self/smaps")
pytestmark = pytest.mark.skipif(not SMAPS.exists(), reason="the system does not tell what a mapping holds")


def lazy(rows: int, used: int) -> LazyTensor:
    return LazyTensor((rows, ROW), torch.uint8, used)


def mappings(lazy: LazyTensor) -> list[dict[str, str]]:
    """What the kernel tells of the mappings that the tensor lies in, in order."""
    first, found = lazy.tensor.data_ptr(), list[dict[str, str]]()
    last = first + lazy.tensor.numel()
    for line in SMAPS.read_text().splitlines():
        if borders := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            start, stop = (int(border, 16) for border in borders.groups())
            inside = start < last and stop > first
            if inside:
                found.append({})
        elif inside:
            name, value = line.split(":", 1)
            found[-1][name] = value.strip()
    return found


def held(lazy: LazyTensor) -> int:
    """Bytes."""
    return sum(KIB * int(one["Rss"].split()[0]) for one in mappings(lazy))


@pytest.mark.parametrize(
    ("rows", "used"), [(1000, 1000), (1000, 400), (1000, 1), (1000, 170), (1000, 0), (1, 1)]
)
def test_no_more_is_held_than_the_rows_in_use_take(rows: int, used: int) -> None:
    made = lazy(rows, used)
    assert held(made) == 0
    assert made.tensor.data_ptr() % HUGE == 0
    for row in range(0, used, 90):
        made.tensor[row, 0] = 1
        assert held(made) <= used * ROW + 4 * KIB
    made.tensor[:used] = 7
    assert used * ROW <= held(made) <= used * ROW + 4 * KIB


def test_rows_that_are_given_back_are_zero_and_the_others_stay() -> None:
    made = lazy(1000, 1000)
    made.tensor[:] = 7
    for used in (900, 341, 340, 10):
        made.use(used)
        assert held(made) <= used * ROW + 4 * KIB
        assert bool((made.tensor[:used] == 7).all())
    made.use(1000)
    assert bool((made.tensor[:10] == 7).all())
    assert not bool(made.tensor[10:].any())


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel has no huge pages"
)
def test_huge_pages_are_asked_for_where_rows_in_use_fill_them() -> None:
    made = lazy(1000, 400)  # 4.7 MiB of 11.7
    flags = [one["VmFlags"].split() for one in mappings(made)]
    sizes = [KIB * int(one["Size"].split()[0]) for one in mappings(made)]
    assert [("hg" in each, "nh" in each) for each in flags] == [(True, False), (False, True)]
    assert sizes[0] == 2 * HUGE
    made.use(1000)
    assert KIB * int(mappings(made)[0]["Size"].split()[0]) == 5 * HUGE
    made.use(100)
    assert not any("hg" in one["VmFlags"].split() for one in mappings(made))


SHRINKING = """
import os, sys, torch
from helios_server.engine.host_memory import LazyTensor
from tests.engine.test_lazy_memory import ROW

procs, (rows, kept, more) = sys.argv[1], map(int, sys.argv[2:])
open(procs, "w").write(str(os.getpid()))  # what was taken before is not counted
slabs = [LazyTensor((rows, ROW), torch.uint8, rows) for _ in range(30)]
for slab in slabs:
    slab.tensor.fill_(7)
for slab in slabs:
    slab.use(kept)
LazyTensor((more, ROW), torch.uint8, more).tensor.fill_(7)
print(all(bool((slab.tensor[:kept] == 7).all()) for slab in slabs))
"""


def test_what_was_given_back_can_be_taken_again_under_a_hard_limit() -> None:
    """Rows end in the middle of huge pages, whose rest the system keeps until memory is short."""
    rows, kept = 600, 250
    more = 30 * (rows - kept)
    with hard_limit(30 * rows * ROW + 12 * 1024 * KIB) as procs:
        command = [sys.executable, "-c", SHRINKING, str(procs), str(rows), str(kept), str(more)]
        child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (child.returncode, child.stdout.strip()) == (0, "True"), child.stderr
