"""Work in a thread that ends: what it gives, and that no team of OpenMP's outlives it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from helios_server.engine.brief import briefly

from tests.engine.company import wait_until


def test_it_gives_what_the_work_returns_or_raises() -> None:
    assert briefly(divmod, 7, 2) == (3, 1)
    assert briefly(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        briefly(divmod, 7, 0)


def test_no_thread_is_left() -> None:
    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    def summed() -> set[str]:
        torch.set_num_threads(2)
        torch.ones(1 << 22).sum()
        return threads()

    before, usual = threads(), torch.get_num_threads()
    try:
        new = briefly(summed) - before
        assert len(new) >= 2  # itself and another of its team
        wait_until(lambda: not new & threads())
    finally:
        torch.set_num_threads(usual)
