"""A copy of a state folder, for another deployment to begin from. Used by the acts, and by benches of the
loop."""

from __future__ import annotations

import shutil
from pathlib import Path

_OF_THIS_RUN = shutil.ignore_patterns("lock", "admin.json")


def keep(state: Path, copy: Path) -> None:
    """While it runs. Raises FileExistsError where there is such a copy."""
    shutil.copytree(state, copy, ignore=_OF_THIS_RUN)
