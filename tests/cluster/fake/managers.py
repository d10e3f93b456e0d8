"""Whose each field of an object is: server-side apply, and what any other write takes.

Used by `store`. Ownership is of single fields (and of what is replaced as a whole), by manager, kind of write
and subresource, as in `metadata.managedFields`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from helios_operator.cluster.kinds import Kind, Object

from tests.cluster.fake.fields import Fields, Path, is_key
from tests.cluster.fake.plain import Shared
from tests.cluster.fake.refusal import Refusal

_NOBODYS = ("apiVersion", "kind")
_THE_SERVERS = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
)
"""Fields of the metadata that belong to no manager."""


@dataclass(frozen=True)
class Manager:
    name: str
    operation: str
    """Apply | Update."""
    subresource: str = ""


@dataclass
class Managers:
    """Of one object."""

    kind: Kind
    fields: Fields
    owned: dict[Manager, set[Path]] = field(default_factory=dict)

    def applied(self, live: Object, wanted: Object, manager: Manager, force: bool) -> Object:
        """What `wanted` makes of `live`. Refusal: a field is another's, and not what is wanted."""
        new = {path: value for path, value in self.fields.leaves(wanted) if not _is_nobodys(path)}
        now = dict(self.fields.leaves(live))
        self._refuse_conflicts(new, now, manager, force)
        dropped = self.owned.get(manager, set()) - new.keys()
        result = live
        for path in sorted(dropped, key=is_key):
            if not any(path in owned for other, owned in self.owned.items() if other != manager):
                result = self.fields.without(result, path)
        result = self.fields.merged(result, wanted)
        self._take(
            set(new), {path for path, value in new.items() if now.get(path, _ABSENT) != value}, manager
        )
        return result

    def changed(self, before: Object, after: Object, manager: Manager) -> None:
        """A write that was no apply: what it changed is the writer's."""
        old = {path: value for path, value in self.fields.leaves(before) if not _is_nobodys(path)}
        new = {path: value for path, value in self.fields.leaves(after) if not _is_nobodys(path)}
        mine = {path for path, value in new.items() if old.get(path, _ABSENT) != value}
        gone = old.keys() - new.keys()
        for owned in self.owned.values():
            owned -= gone
        self._take(self.owned.get(manager, set()) | mine, mine, manager)

    def copy(self) -> Managers:
        """To try a write on."""
        return Managers(self.kind, self.fields, {each: set(owned) for each, owned in self.owned.items()})

    def document(self) -> list[Shared]:
        """`metadata.managedFields`."""
        return [_entry(self.kind, manager, owned) for manager, owned in self.owned.items()]

    def _refuse_conflicts(
        self, new: dict[Path, Any], now: dict[Path, Any], manager: Manager, force: bool
    ) -> None:
        """Another's field with another value."""
        if force:
            return
        others = {path: other for other, owned in self.owned.items() if other != manager for path in owned}
        lost = [path for path, value in new.items() if path in others and now.get(path, _ABSENT) != value]
        if lost:
            named = "\n".join(f"- {_text(path)}" for path in lost)
            about = f'conflict with "{others[lost[0]].name}"'
            many = f"Apply failed with {len(lost)} conflict{'s' if len(lost) > 1 else ''}"
            raise Refusal(409, "Conflict", f"{many}: {about}:\n{named}")

    def _take(self, all_: set[Path], taken: set[Path], manager: Manager) -> None:
        """Others lose what was changed; what was only said again is shared."""
        for other, owned in self.owned.items():
            if other != manager:
                owned -= taken
        self.owned[manager] = all_
        self.owned = {each: owned for each, owned in self.owned.items() if owned}


_ABSENT = object()


def _is_nobodys(path: Path) -> bool:
    return path[0] in _NOBODYS or (path[0] == "metadata" and len(path) > 1 and path[1] in _THE_SERVERS)


def _entry(kind: Kind, manager: Manager, owned: set[Path]) -> Shared:
    tree: Object = {}
    for path in sorted(owned, key=repr):
        at = tree
        for step in path:
            at = at.setdefault(_key(step), {})
    entry = Shared(
        manager=manager.name,
        operation=manager.operation,
        apiVersion=kind.api_version,
        fieldsType="FieldsV1",
        fieldsV1=tree,
    )
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def _key(step: Any) -> str:
    if isinstance(step, str):
        return f"f:{step}"
    if step[0][0] == "":
        return f"v:{json.dumps(step[0][1])}"
    return f"k:{json.dumps(dict(step), separators=(',', ':'))}"


def _text(path: Path) -> str:
    return "".join(f".{step}" if isinstance(step, str) else f"[{json.dumps(dict(step))}]" for step in path)
