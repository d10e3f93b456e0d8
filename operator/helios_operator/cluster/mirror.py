"""The objects as the API server last told of them: by the watch, or in the answer to a write of our own.

Fed by `app` (kopf's watch), by `belongings` (what it wrote) and by the slow resync; read by `observe`.
Because answers to our own writes stand here at once, and older news never replace newer ones, a pass cannot
see the cluster as it was before its own last write; only a whole list may show that the server itself went
back. Of pods that are not ours it keeps what takes room on a node, and no more. It judges nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

from helios_operator.cluster import requests
from helios_operator.cluster.kinds import LABELLED, NODE, POD, Key, Kind, Object, key_of, version_of
from helios_operator.passes.unread import Source
from helios_operator.render import labels

_TOMBSTONES = 4096
"""Objects known to be gone, the newest: late news of one must not bring it back."""
_ENDED = ("Succeeded", "Failed")
"""Phases of a pod that takes no room any more."""
_SHARED = 10_000
Change = Callable[[Object | None, Object | None], None]
"""Told of an object as it was, and as it is; None: it was not there, or is no longer."""


class Mirror:
    """Objects by kind, namespace and name, and those of a HeliosDeployment by its name. `room`: does anybody
    ask what room pods take? Else those of others are of no interest at all."""

    def __init__(self, room: bool = True) -> None:
        self._objects: dict[Kind, dict[Key, Object]] = defaultdict(dict)
        self._in: dict[tuple[Kind, str], set[Key]] = defaultdict(set)
        self._of: dict[tuple[Kind, Key], set[Key]] = defaultdict(set)
        self._told: dict[Kind, list[Change]] = defaultdict(list)
        self._gone: dict[str, int] = {}
        self._room = room
        self._shared: dict[str, Any] = {}
        """What many pods of others have in common, by its text."""
        self.buried = 0
        """How many were found to be gone so far: at a list, what of it was known to be gone before."""
        self.heard = time.time()
        """When the watch last told something, or was found to have told everything. Unix seconds."""

    # -- read -----------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind, namespace: str | None = None) -> Iterator[Object]:
        """By name. None: of every namespace."""
        found = self._objects[kind]
        for key in sorted(found if namespace is None else self._in[kind, namespace]):
            yield found[key]

    def of(self, kind: Kind, deployment: Key) -> list[Object]:
        """Those that are labelled as a HeliosDeployment's, by name."""
        return [self._objects[kind][key] for key in sorted(self._of[kind, deployment])]

    def count(self, kind: Kind) -> int:
        return len(self._objects[kind])

    def tell(self, kind: Kind, changed: Change) -> None:
        """Whoever computed something of each object: from now on, of every change."""
        self._told[kind].append(changed)

    # -- fed ------------------------------------------------------------------------------------------------

    def put(self, kind: Kind, obj: Object) -> bool:
        """False when this, or something newer, was known, or it is of no interest."""
        known = self._objects[kind].get(key_of(obj))
        if obj["metadata"].get("uid", "") in self._gone:
            return False
        if known is not None and version_of(known) >= version_of(obj):
            return False
        return self._keep(kind, obj, known)

    def forget(self, kind: Kind, obj: Object) -> bool:
        """It is gone; one of the same name that came after it stays."""
        self._bury(obj["metadata"].get("uid", ""))
        known = self._objects[kind].get(key_of(obj))
        if known is None or known["metadata"].get("uid") != obj["metadata"].get("uid"):
            return False
        self._drop(kind, known)
        return True

    def take(self, kind: Kind, listed: Iterable[Object], before: int = 0, buried: int = 0) -> list[Object]:
        """Takes in objects that were listed; returns those of which nobody had told. `before` and `buried`:
        `newest` and `buried` when the list was asked for. What was known by then and is listed older, or was
        gone by then and is listed, shows that the server was put back to an older state: the list holds."""
        return [obj for obj in listed if is_ours(kind, obj) and self._take(kind, obj, before, buried)]

    def clear(self, kind: Kind, listed: Container[Key], before: int) -> list[Object]:
        """Forgets, and returns, what is not among all that were listed. `before`: `newest` when the list was
        asked for: what is newer than that came meanwhile."""
        vanished = [
            obj for key, obj in self._objects[kind].items() if key not in listed and version_of(obj) <= before
        ]
        for obj in vanished:
            self.forget(kind, obj)
        return vanished

    def _take(self, kind: Kind, obj: Object, before: int, buried: int) -> bool:
        uid, known = obj["metadata"].get("uid", ""), self._objects[kind].get(key_of(obj))
        if self._gone.get(uid, buried) < buried:
            del self._gone[uid]
        if uid not in self._gone and known is not None and _is_past(known, obj, before):
            return self._keep(kind, obj, known)
        return self.put(kind, obj)

    def _keep(self, kind: Kind, obj: Object, known: Object | None) -> bool:
        kept = self._trimmed(kind, obj)
        if kept is None:
            if known is not None:
                self._drop(kind, known)
            return False
        if known is not None:
            self._unlist(kind, known)
        key = key_of(obj)
        self._objects[kind][key] = kept
        self._in[kind, key[0]].add(key)
        if owner := owner_of(kept):
            self._of[kind, owner].add(key)
        self._changed(kind, known, kept)
        return True

    def _drop(self, kind: Kind, known: Object) -> None:
        self._unlist(kind, known)
        del self._objects[kind][key_of(known)]
        self._changed(kind, known, None)

    def _changed(self, kind: Kind, before: Object | None, after: Object | None) -> None:
        for told in self._told[kind]:
            told(before, after)

    def newest(self, kind: Kind) -> int:
        return max(map(version_of, self._objects[kind].values()), default=0)

    def _trimmed(self, kind: Kind, obj: Object) -> Object | None:
        """Without what nobody reads: the bulk of the memory. None: nobody reads any of it."""
        metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
        if kind is POD and owner_of(obj) is None:
            return self._room_taken(obj)
        if kind is NODE:
            status = obj.get("status", {})
            told = ("allocatable", "conditions", "nodeInfo")
            return {**obj, "metadata": metadata, "status": {k: status[k] for k in told if k in status}}
        return {**obj, "metadata": metadata}

    def _room_taken(self, pod: Object) -> Object | None:
        """Of a pod of others: on which node, and how much. What waits for a node or has ended takes none."""
        metadata, spec = pod["metadata"], pod.get("spec") or {}
        phase, node = (pod.get("status") or {}).get("phase"), spec.get("nodeName")
        if not self._room or not node or phase in _ENDED:
            return None
        kept = {"name": metadata["name"], "uid": metadata.get("uid", "")}
        kept |= {"namespace": sys.intern(metadata.get("namespace", ""))}
        kept |= {"resourceVersion": metadata.get("resourceVersion", "")}
        return {
            "metadata": kept,
            "spec": self._share(requests.told(spec)),
            "status": self._share({"phase": phase}),
        }

    def _share(self, value: Any) -> Any:
        """Equal values are one: pods of one template on one node."""
        if len(self._shared) > _SHARED:
            self._shared.clear()
        return self._shared.setdefault(json.dumps(value, sort_keys=True), value)

    def _unlist(self, kind: Kind, obj: Object) -> None:
        key = key_of(obj)
        self._in[kind, key[0]].discard(key)
        if owner := owner_of(obj):
            self._of[kind, owner].discard(key)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = self.buried
        self.buried += 1
        while len(self._gone) > _TOMBSTONES:
            del self._gone[next(iter(self._gone))]


def owner_of(obj: Object) -> Key | None:
    """The HeliosDeployment that an object is labelled with."""
    marks = obj["metadata"].get("labels") or {}
    name = marks.get(labels.DEPLOYMENT) or marks.get(labels.PROFILES)
    return (obj["metadata"].get("namespace", ""), name) if name else None


def source(kind: Kind, obj: Object) -> Source:
    """Of what a pass reads."""
    metadata = obj["metadata"]
    return Source(kind.name, metadata["name"], metadata.get("uid", ""), version_of(obj), lambda: obj)


def belongs_to(obj: Object, uid: str) -> bool:
    """Not to a HeliosDeployment of the same name that was deleted a moment ago, and is still being cleared
    away."""
    return any(reference.get("uid") == uid for reference in obj["metadata"].get("ownerReferences") or ())


def is_ours(kind: Kind, obj: Object) -> bool:
    """Of kinds that others have too, only what carries our label is kept. Of pods, `put` says."""
    return kind not in LABELLED or owner_of(obj) is not None


def _is_past(known: Object, listed: Object, before: int) -> bool:
    """What was known when a list was asked for is in it, or something newer: unless the server went back."""
    if version_of(known) > before or version_of(listed) > version_of(known):
        return False
    same = known["metadata"].get("uid") == listed["metadata"].get("uid")
    return version_of(listed) < version_of(known) or not same
