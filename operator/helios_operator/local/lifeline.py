"""Ties a child's life to its parent's, so that even a SIGKILL of `helios up` leaves no process behind.

The parent puts its pid into the child's environment; the command calls `hold_on` first thing in the child.
It must stay small: it runs before anything else is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "HELIOS_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def hold_on() -> None:
    """Ends this process when the parent named in the environment does; does nothing when none is named."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    if os.getppid() != int(parent):  # it died before we asked to be told
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
