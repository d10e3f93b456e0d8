"""Where the state folders of `helios up` are, and which of them a verb means.

Reading is always from the folder, which is whole and current while `helios up` runs and after it ended.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from helios_operator.errors import ObjectNotFoundError, StateError
from helios_operator.local import lock
from helios_operator.local.store import DEPLOYMENT, Store


@dataclass(frozen=True)
class State:
    """A state folder, opened to be read. `running`: a `helios up` holds it now."""

    folder: Path
    store: Store
    running: bool

    def events_file(self, name: str) -> Path:
        return self.folder / "deployments" / name / "events.jsonl"


def root() -> Path:
    """HELIOS_STATE, else XDG_STATE_HOME/helios, else ~/.local/state/helios: one folder per name under it."""
    if chosen := os.environ.get("HELIOS_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "helios"


def open_folder(folder: Path) -> State:
    return State(folder, Store.read(folder / "objects"), lock.holder(folder) is not None)


def every(folder: Path | None = None) -> list[State]:
    """All state folders under the root, or the one given."""
    if folder is not None:
        return [open_folder(folder)]
    return [open_folder(path.parent) for path in sorted(root().glob("*/objects"))]


def holding(name: str, folder: Path | None) -> State:
    """The folder that holds a deployment: the one given, the running one, or the only one."""
    found = [state for state in every(folder) if state.store.find(DEPLOYMENT, name)]
    running = [state for state in found if state.running]
    candidates = running or found
    if len(candidates) > 1:
        folders = ", ".join(str(state.folder) for state in candidates)
        raise StateError("state", f"{name!r} is in several folders: {folders}", "choose one with --state DIR")
    if not candidates:
        known = sorted({n for state in every(folder) for n in state.store.names(DEPLOYMENT)})
        where = folder or root()
        problem = f"there is no {name!r} in {where} (there: {', '.join(known) or 'nothing'})"
        raise ObjectNotFoundError(
            "name", problem, "start it with `helios up FILE`, or give its folder with --state DIR"
        )
    return candidates[0]
