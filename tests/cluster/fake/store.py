"""The objects of the server, and the verbs that change them.

Used by `http`, which speaks for clients, and by `controllers` and tests, which are part of the cluster. Every
change has a resourceVersion of its own and is news for those that watch.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from helios_operator.cluster.kinds import Key, Kind, Object, key_of

from tests.cluster.fake import refusal
from tests.cluster.fake.fields import Fields
from tests.cluster.fake.managers import Manager, Managers
from tests.cluster.fake.plain import copied
from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.schema import Schema
from tests.cluster.fake.selectors import has, selects

Guard = Callable[["Store", str, Kind, Object], None]
"""Admission: (store, verb, kind, object as it would stand) refuses by raising."""
_FIRST_VERSION = 100
_GRACEFUL = ("Pod",)
_STATUS = ("Deployment", "Job", "Pod", "Service", "Node", "PodDisruptionBudget", "ReplicaSet")
"""Built-in kinds with a status of their own, beside every custom one."""


@dataclass
class Stored:
    obj: Object
    managers: Managers


@dataclass(frozen=True)
class News:
    """ADDED | MODIFIED | DELETED. `before`: what it replaced, for those that watch by a selector."""

    version: int
    type: str
    kind: Kind
    obj: Object
    before: Object | None = None


@dataclass
class Store:
    """`guards`: admission, in order. `strict`: an apply with a field that no schema declares is refused, as
    by today's servers; else such a field is pruned without a word."""

    schema: Schema = field(default_factory=Schema)
    guards: list[Guard] = field(default_factory=list)
    strict: bool = True

    def __post_init__(self) -> None:
        self._objects: dict[Kind, dict[Key, Stored]] = {}
        self._versions = itertools.count(_FIRST_VERSION)
        self.version = _FIRST_VERSION
        self.news: list[News] = []
        self.told: list[Callable[[News], None]] = []
        """Called with every piece of news."""

    # -- read -----------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return copied(self._stored(kind, namespace, name).obj)

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return copied(self.view(kind, namespace, name))

    def list(self, kind: Kind, namespace: str = "", selector: str = "", fields: str = "") -> list[Object]:
        """By name. Selectors are of equalities."""
        return [copied(obj) for obj in self.views(kind, namespace, selector, fields)]

    def view(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """What stands, not a copy: for reading only. It is never changed, but replaced."""
        found = self._objects.get(kind, {}).get((namespace, name))
        return found.obj if found else None

    def views(
        self, kind: Kind, namespace: str = "", selector: str = "", fields: str = ""
    ) -> Sequence[Object]:
        """What `list` gives, for reading only."""
        found = sorted(self._objects.get(kind, {}).items())
        return [
            stored.obj
            for (space, _), stored in found
            if namespace in ("", space) and selects(selector, stored.obj) and has(fields, stored.obj)
        ]

    def all(self) -> Iterator[tuple[Kind, Object]]:
        """For reading only."""
        for kind, objects in list(self._objects.items()):
            for stored in list(objects.values()):
                yield kind, stored.obj

    # -- write ----------------------------------------------------------------------------------------------

    def create(self, kind: Kind, obj: Object, manager: str = "test") -> Object:
        metadata = obj.get("metadata", {})
        name = metadata.get("name") or f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        namespace = metadata.get("namespace", "") if kind.namespaced else ""
        if metadata.get("resourceVersion"):
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        made = self._new(kind, namespace, name, obj)
        return self._add(kind, made, lambda managers: managers.changed({}, made, Manager(manager, "Update")))

    def apply(
        self, kind: Kind, obj: Object, manager: str, *, force: bool = False, subresource: str = ""
    ) -> tuple[Object, bool]:
        """Server-side apply. True: it was made by it."""
        namespace, name = key_of(obj)
        if undeclared := self.schema.undeclared(kind, obj):
            self._refuse_undeclared(kind, obj, undeclared)
        wanted = self._declared(kind, obj)
        who = Manager(manager, "Apply", subresource)
        stored = self._objects.get(kind, {}).get((namespace, name))
        if stored is None:
            if subresource:
                raise refusal.not_found(kind, name)
            if obj["metadata"].get("resourceVersion"):
                why = "resourceVersion should not be set on objects to be created"
                raise Refusal(400, "BadRequest", why)
            if uid := obj["metadata"].get("uid"):
                why = (
                    f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                )
                raise refusal.conflict(kind, name, why)
            made = self._new(kind, namespace, name, wanted)
            return self._add(
                kind, made, lambda managers: managers.applied({}, _bare(made, wanted), who, force)
            ), True
        self._check_version(kind, stored.obj, obj)
        if (uid := obj["metadata"].get("uid")) and uid != stored.obj["metadata"]["uid"]:
            why = f'metadata.uid: Invalid value: "{uid}": field is immutable'
            raise refusal.invalid(kind, name, why)
        trial = stored.managers.copy()
        after = trial.applied(stored.obj, wanted, who, force)
        return self._replace(kind, stored, after, trial, subresource), False

    def merge(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        changes: Object,
        manager: str = "test",
        subresource: str = "",
    ) -> Object:
        """A JSON merge patch."""
        stored = self._stored(kind, namespace, name)
        self._check_version(kind, stored.obj, changes)
        after = _merged(stored.obj, changes)
        return self._update(kind, stored, after, manager, subresource)

    def update(self, kind: Kind, obj: Object, manager: str = "test", subresource: str = "") -> Object:
        """A PUT of the whole object."""
        stored = self._stored(kind, *key_of(obj))
        self._check_version(kind, stored.obj, obj)
        return self._update(kind, stored, obj, manager, subresource)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        grace: int | None = None,
    ) -> Object:
        """With what it owns. A pod that has a node ends when its kubelet says so, and what has finalizers
        when they are gone."""
        stored = self._stored(kind, namespace, name)
        metadata = stored.obj["metadata"]
        for what, wanted, found in (
            ("UID", uid, metadata["uid"]),
            ("ResourceVersion", version, metadata["resourceVersion"]),
        ):
            if wanted and wanted != found:
                why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                raise refusal.conflict(kind, name, why)
        self._admit("delete", kind, stored.obj)
        waits = kind.name in _GRACEFUL and stored.obj.get("spec", {}).get("nodeName") and grace != 0
        if waits or metadata.get("finalizers"):
            if "deletionTimestamp" not in metadata:
                seconds = stored.obj.get("spec", {}).get("terminationGracePeriodSeconds", 30) if waits else 0
                going = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": seconds}
                self._put(kind, stored, {**stored.obj, "metadata": {**metadata, **going}})
            return copied(stored.obj)
        return self._remove(kind, stored)

    def collect(self) -> None:
        """What was made for an owner that had just gone: the server takes it, the garbage collector does not
        leave it."""
        there = {obj["metadata"]["uid"] for _, obj in self.all()}
        for kind, obj in self.all():
            owners = obj["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in there for owner in owners):
                self._let_go(kind, obj)

    # -- as etcd does it ------------------------------------------------------------------------------------

    def backup(self) -> tuple[int, dict[Kind, dict[Key, Stored]]]:
        return self.version, copy.deepcopy(self._objects)

    def restore(self, backup: tuple[int, dict[Kind, dict[Key, Stored]]]) -> None:
        """To an older state, versions included. Nobody is told: watches are broken by it."""
        self.version, objects = backup
        self._objects = copy.deepcopy(objects)
        self._versions = itertools.count(self.version + 1)
        self.news.clear()

    # -- how ------------------------------------------------------------------------------------------------

    def _stored(self, kind: Kind, namespace: str, name: str) -> Stored:
        found = self._objects.get(kind, {}).get((namespace, name))
        if found is None:
            raise refusal.not_found(kind, name)
        return found

    def _new(self, kind: Kind, namespace: str, name: str, obj: Object) -> Object:
        """As it would be made: without a status where that is a subresource."""
        metadata = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
        about = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        if kind.namespaced:
            about["namespace"] = namespace
        made = {"apiVersion": kind.api_version, "kind": kind.name} | copied(obj)
        made["metadata"] = copied(metadata) | about
        if self._has_status(kind):
            made.pop("status", None)
        return self.schema.pruned(kind, _defaulted(kind, made))

    def _add(self, kind: Kind, made: Object, own: Callable[[Managers], Any]) -> Object:
        key = key_of(made)
        if key in self._objects.get(kind, {}):
            raise refusal.already_exists(kind, key[1])
        self._admit("create", kind, made)
        stored = Stored(made, Managers(kind, Fields(self.schema, kind)))
        own(stored.managers)
        self._objects.setdefault(kind, {})[key] = stored
        self._put(kind, stored, made, "ADDED")
        return copied(stored.obj)

    def _update(self, kind: Kind, stored: Stored, after: Object, manager: str, subresource: str) -> Object:
        trial = stored.managers.copy()
        kept = self._part(kind, stored.obj, self.schema.pruned(kind, after), subresource)
        trial.changed(stored.obj, kept, Manager(manager, "Update", subresource))
        return self._replace(kind, stored, after, trial, subresource)

    def _replace(self, kind: Kind, stored: Stored, after: Object, managers: Managers, part: str) -> Object:
        """What changes nothing is no news, and has no version."""
        after = self._part(kind, stored.obj, self.schema.pruned(kind, after), part)
        if _content(after) != _content(stored.obj):
            self._admit("update", kind, after)
            if after.get("spec") != stored.obj.get("spec"):
                after["metadata"]["generation"] = stored.obj["metadata"].get("generation", 0) + 1
            stored.managers = managers
            self._put(kind, stored, after)
            if _is_let_go(kind, after["metadata"]):
                return self._remove(kind, stored)
        stored.managers = managers
        return copied(stored.obj)

    def _part(self, kind: Kind, before: Object, after: Object, part: str) -> Object:
        """The status is written by itself, and nothing else with it."""
        if part == "status":
            return {**before, "status": after.get("status", {})}
        metadata = {**after["metadata"]} | {
            key: before["metadata"][key]
            for key in ("uid", "creationTimestamp", "generation", "deletionTimestamp")
            if key in before["metadata"]
        }
        kept = {**after, "metadata": metadata}
        if self._has_status(kind):
            kept.pop("status", None)
            if "status" in before:
                kept["status"] = before["status"]
        return kept

    def _put(self, kind: Kind, stored: Stored, obj: Object, type: str = "MODIFIED") -> None:
        before = None if type == "ADDED" else stored.obj
        self.version = next(self._versions)
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        metadata["managedFields"] = stored.managers.document()
        stored.obj = {**obj, "metadata": metadata}
        self._tell(News(self.version, type, kind, copied(stored.obj), before))

    def _remove(self, kind: Kind, stored: Stored) -> Object:
        del self._objects[kind][key_of(stored.obj)]
        self.version = next(self._versions)
        metadata = {**stored.obj["metadata"], "resourceVersion": str(self.version)}
        stored.obj = {**stored.obj, "metadata": metadata}
        self._tell(News(self.version, "DELETED", kind, copied(stored.obj), stored.obj))
        self._collect(stored.obj["metadata"]["uid"])
        return stored.obj

    def _collect(self, uid: str) -> None:
        """What the deleted object owned, unless another owner is left."""
        for kind, obj in self.all():
            owners = obj["metadata"].get("ownerReferences") or ()
            if not any(owner["uid"] == uid for owner in owners):
                continue
            there = {each["metadata"]["uid"] for _, each in self.all()}
            if not any(owner["uid"] in there for owner in owners):
                self._let_go(kind, obj)

    def _let_go(self, kind: Kind, obj: Object) -> None:
        """Unless it went with another."""
        if self.view(kind, *key_of(obj)):
            self.delete(kind, *key_of(obj))

    def _tell(self, news: News) -> None:
        self.news.append(news)
        for listener in self.told:
            listener(news)

    def _admit(self, verb: str, kind: Kind, obj: Object) -> None:
        for guard in self.guards:
            guard(self, verb, kind, obj)

    def _check_version(self, kind: Kind, live: Object, sent: Object) -> None:
        wanted = sent.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != live["metadata"]["resourceVersion"]:
            raise refusal.modified(kind, live["metadata"]["name"])

    def _refuse_undeclared(self, kind: Kind, obj: Object, paths: list[str]) -> None:
        if not self.strict:
            return
        namespace, name = key_of(obj)
        said = [f"{path}: field not declared in schema" for path in paths]
        listed = said[0] if len(said) == 1 else "errors:\n  " + "\n  ".join(said)
        about = f"{namespace}/{name}; {kind.api_version}, Kind={kind.name}"
        raise Refusal(500, "", f"failed to create typed patch object ({about}): {listed}")

    def _declared(self, kind: Kind, obj: Object) -> Object:
        """Without what pruning takes, and without defaults: they are nobody's."""
        if not self.schema.undeclared(kind, obj):
            return copied(obj)
        pruned = self.schema.pruned(kind, obj)
        return dict(_common(obj, pruned))

    def _has_status(self, kind: Kind) -> bool:
        return self.schema.is_custom(kind) or kind.name in _STATUS


def _is_let_go(kind: Kind, metadata: Object) -> bool:
    """It was only held by its finalizers."""
    waits = metadata.get("finalizers") or kind.name in _GRACEFUL
    return bool(metadata.get("deletionTimestamp") and not waits)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _merged(under: Any, over: Any) -> Any:
    """JSON merge patch: null takes a field away."""
    if not isinstance(over, dict):
        return copied(over)
    kept = dict(under) if isinstance(under, dict) else {}
    for key, item in over.items():
        if item is None:
            kept.pop(key, None)
        else:
            kept[key] = _merged(kept.get(key), item)
    return kept


def _content(obj: Object) -> Object:
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**obj, "metadata": metadata}


def _bare(made: Object, wanted: Object) -> Object:
    """Of what was made, the fields that were asked for."""
    return {key: wanted[key] for key in wanted if key in made}


def _common(obj: Any, pruned: Any) -> Any:
    if isinstance(obj, dict) and isinstance(pruned, dict):
        return {key: _common(item, pruned[key]) for key, item in obj.items() if key in pruned}
    if isinstance(obj, list) and isinstance(pruned, list):
        return [_common(item, kept) for item, kept in zip(obj, pruned, strict=True)]
    return obj


def _defaulted(kind: Kind, obj: Object) -> Object:
    """What the server adds to the built-in kinds that HELIOS writes."""
    if kind.name == "Service":
        spec = {"type": "ClusterIP", "sessionAffinity": "None"} | obj["spec"]
        ports = [{"protocol": "TCP"} | port for port in spec.get("ports", ())]
        return {**obj, "spec": {"clusterIP": "10.96.0.10", **spec, "ports": ports}}
    return obj
