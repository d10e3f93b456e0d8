"""Files that may be replaced while the pod runs: certificates and tokens, which others rotate.

Looked at by `rpc.server` every second, through what was read from them (`tls.py`, `callers.py`). It reads no
content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Signature = tuple[tuple[str, int, int, int] | None, ...]


class Watched:
    """`paths` is asked at each look: a folder may gain files."""

    def __init__(self, paths: Callable[[], Iterable[Path]]) -> None:
        self._paths = paths
        self._known = self._seen = self._signature()

    def changed(self) -> bool:
        """Whether there is something new to read, once for each change: it has been the same for two looks,
        so that nobody reads between the first and the last file that is put in its place."""
        before, self._seen = self._seen, self._signature()
        settled = self._seen == before and self._seen != self._known
        if settled:
            self._known = self._seen
        return settled

    def _signature(self) -> Signature:
        return tuple(_signature(path) for path in self._paths())


def _signature(path: Path) -> tuple[str, int, int, int] | None:
    """None: there is no such file, or it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
