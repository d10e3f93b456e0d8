"""Where the state folders of `helios up` are, and which of them a verb means: this machine's half of
`places`.

Reading is always from the folder, which is whole and current while `helios up` runs and after it ended. A
change is asked of the `helios up` that runs.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from helios_operator.errors import ObjectNotFoundError, StateError
from helios_operator.local import admin, events, lock
from helios_operator.local.admin import Change
from helios_operator.local.events import Record
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT, MODEL, PROFILE, Store

Object = dict[str, Any]


@dataclass(frozen=True)
class State:
    """A state folder, opened to be read. `running`: a `helios up` holds it now, and has looked at everything:
    what an earlier run left is not taken for what is."""

    folder: Path
    store: Store
    running: bool


@dataclass(frozen=True)
class LocalDeployment:
    """A HeliosDeployment in a state folder."""

    obj: Object
    state: State

    @property
    def running(self) -> bool:
        return self.state.running

    def records(self) -> list[Record]:
        return events.read(self.state.folder / "deployments" / self.obj["metadata"]["name"] / "events.jsonl")

    def profiles(self) -> list[Object]:
        return self.state.store.objects(PROFILE)

    def models(self) -> list[Object]:
        return self.state.store.objects(MODEL)

    def text(self, config_map: str, key: str) -> str | None:
        found = self.state.store.find(CONFIG_MAP, config_map)
        text: str | None = (found or {}).get("data", {}).get(key)
        return text

    def change(self, change: Change) -> None:
        asyncio.run(admin.ask(self.state.folder, change))


class Folders:
    """All state folders, or the one given."""

    nothing = "No deployments. Start one with `helios up FILE`."

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def hold(self, name: str | None) -> bool:
        """A deployment of that name; None: any."""
        held = {known for found in every(self._folder) for known in found.store.names(DEPLOYMENT)}
        return bool(held) if name is None else name in held

    def find(self, name: str) -> LocalDeployment:
        found = holding(name, self._folder)
        return LocalDeployment(found.store.get(DEPLOYMENT, name), found)

    def all(self) -> list[LocalDeployment]:
        states = every(self._folder)
        return [LocalDeployment(obj, found) for found in states for obj in found.store.objects(DEPLOYMENT)]

    def profiles(self) -> list[Object]:
        return [obj for found in every(self._folder) for obj in found.store.objects(PROFILE)]


def root() -> Path:
    """HELIOS_STATE, else XDG_STATE_HOME/helios, else ~/.local/state/helios: one folder per name under it."""
    if chosen := os.environ.get("HELIOS_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "helios"


def open_folder(folder: Path) -> State:
    held = lock.holder(folder)  # first: what is read afterwards is no older
    return State(folder, Store.read(folder / "objects"), held is not None and held.begun)


def every(folder: Path | None = None) -> list[State]:
    """All state folders under the root, or the one given."""
    if folder is not None:
        return [open_folder(folder)]
    return [open_folder(path) for path in folders()]


def folders() -> list[Path]:
    """Under the root."""
    return [path.parent for path in sorted(root().glob("*/objects"))]


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
        fix = "start it with `helios up FILE`, give its folder with --state, or a cluster with --kubeconfig"
        raise ObjectNotFoundError("name", problem, fix)
    return candidates[0]
