"""The objects as the API server last told of them: by the watch, or in the answer to a write of our own.

Fed by `app` (kopf's watch), by `apply` (what it wrote) and by the slow resync; read by `observe`. Because
answers to our own writes stand here at once, and older news never replace newer ones, a pass cannot see the
cluster as it was before its own last write. It keeps objects and judges nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator

from helios_operator.cluster import requests
from helios_operator.cluster.kinds import LABELLED, NODE, POD, Key, Kind, Object, key_of, version_of
from helios_operator.passes.unread import Source
from helios_operator.render import labels

_TOMBSTONES = 4096
"""Objects known to be gone, the newest: late news of one must not bring it back."""


class Mirror:
    """Objects by kind, namespace and name, and those of a HeliosDeployment by its name."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, Object]] = defaultdict(dict)
        self._in: dict[tuple[Kind, str], set[Key]] = defaultdict(set)
        self._of: dict[tuple[Kind, Key], set[Key]] = defaultdict(set)
        self._changes: dict[Kind, int] = defaultdict(int)
        self._gone: dict[str, None] = {}
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

    def changes(self, kind: Kind) -> int:
        """How often one came, changed or went: what was computed of all is valid until the next."""
        return self._changes[kind]

    # -- fed ------------------------------------------------------------------------------------------------

    def put(self, kind: Kind, obj: Object) -> bool:
        """False when this, or something newer, was known."""
        key, uid = key_of(obj), obj["metadata"].get("uid", "")
        known = self._objects[kind].get(key)
        if uid in self._gone or (known is not None and version_of(known) >= version_of(obj)):
            return False
        if known is not None:
            self._unlist(kind, known)
        self._objects[kind][key] = kept = _trimmed(kind, obj)
        self._in[kind, key[0]].add(key)
        if owner := owner_of(kept):
            self._of[kind, owner].add(key)
        self._changes[kind] += 1
        return True

    def forget(self, kind: Kind, obj: Object) -> bool:
        """It is gone; one of the same name that came after it stays."""
        self._bury(obj["metadata"].get("uid", ""))
        known = self._objects[kind].get(key_of(obj))
        if known is None or known["metadata"].get("uid") != obj["metadata"].get("uid"):
            return False
        self._unlist(kind, known)
        del self._objects[kind][key_of(obj)]
        self._changes[kind] += 1
        return True

    def take(self, kind: Kind, listed: Iterable[Object]) -> list[Object]:
        """Takes in objects that were listed; returns those of which nobody had told."""
        return [obj for obj in listed if is_ours(kind, obj) and self.put(kind, obj)]

    def clear(self, kind: Kind, listed: Container[Key], before: int) -> list[Object]:
        """Forgets, and returns, what is not among all that were listed. `before`: `newest` when the list was
        asked for: what is newer than that came meanwhile."""
        vanished = [
            obj for key, obj in self._objects[kind].items() if key not in listed and version_of(obj) <= before
        ]
        for obj in vanished:
            self.forget(kind, obj)
        return vanished

    def newest(self, kind: Kind) -> int:
        return max(map(version_of, self._objects[kind].values()), default=0)

    def _unlist(self, kind: Kind, obj: Object) -> None:
        key = key_of(obj)
        self._in[kind, key[0]].discard(key)
        if owner := owner_of(obj):
            self._of[kind, owner].discard(key)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
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
    """Of kinds that others have too, only what carries our label is kept. Every pod counts: it takes room."""
    return kind not in LABELLED or owner_of(obj) is not None


def _trimmed(kind: Kind, obj: Object) -> Object:
    """Without what nobody reads: the bulk of the memory."""
    metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    if kind is POD and owner_of(obj) is None:
        return _room_taken(obj)
    if kind is NODE:
        status = obj.get("status", {})
        told = ("allocatable", "conditions", "nodeInfo")
        return {**obj, "metadata": metadata, "status": {k: status[k] for k in told if k in status}}
    return {**obj, "metadata": metadata}


def _room_taken(pod: Object) -> Object:
    metadata = pod["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": requests.told(pod.get("spec", {})),
        "status": {"phase": pod.get("status", {}).get("phase")},
    }
