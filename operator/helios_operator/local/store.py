"""The objects of one machine, as an API server would keep them: in memory, written through to a folder.

Opened by the runtime (alone: see `lock`), read by `helios status` and `helios plan` when no runtime runs.
One file per object, replaced whole, so that a kill at any moment leaves the old object or the new one.
Whoever opens it says by which rules objects are admitted; its own are about names only.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.api.problems import Invalid
from helios_operator.errors import ObjectNotFoundError, StateError
from helios_operator.local.files import read_json, remove_partials, write_json

DEPLOYMENT, PROFILE, MODEL, CONFIG_MAP = "HeliosDeployment", "HeliosProfile", "HeliosModel", "ConfigMap"
_FOLDERS = {
    DEPLOYMENT: "heliosdeployments",
    PROFILE: "heliosprofiles",
    MODEL: "heliosmodels",
    CONFIG_MAP: "configmaps",
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Object = dict[str, Any]
Admit = Callable[[Object, Object | None], Object]
"""An object as it is to be stored, given what it replaces; raises what is wrong with it."""


class Store:
    """Objects by kind and name. Every dict that goes in or out is a copy: nobody shares state through it."""

    def __init__(self, folder: Path, objects: dict[tuple[str, str], Object], admit: Admit | None) -> None:
        self.folder = folder
        self._objects = objects
        self._admit = admit
        self._version = max((int(o["metadata"]["resourceVersion"]) for o in objects.values()), default=0)

    @classmethod
    def open(cls, folder: Path, admit: Admit) -> Store:
        """To be written, by one at a time. StateError names a file that is damaged or of another release."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
        store = cls(folder, _read_all(folder), admit)
        for (kind, name), obj in store._objects.items():
            store._check(kind, name, obj)
        return store

    @classmethod
    def read(cls, folder: Path) -> Store:
        """To be read only, at any time and by anybody."""
        return cls(folder, _read_all(folder), None)

    def get(self, kind: str, name: str) -> Object:
        """ObjectNotFoundError when there is none."""
        found = self.find(kind, name)
        if found is None:
            there = ", ".join(sorted(n for k, n in self._objects if k == kind)) or "none"
            raise ObjectNotFoundError(kind, f"there is no {name!r}", f"name one of those that exist: {there}")
        return found

    def find(self, kind: str, name: str) -> Object | None:
        found = self._objects.get((kind, name))
        return copy.deepcopy(found) if found is not None else None

    def objects(self, kind: str) -> list[Object]:
        """All of a kind, by name."""
        return [copy.deepcopy(o) for (k, _), o in sorted(self._objects.items()) if k == kind]

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, name in self._objects if k == kind)

    def version(self, kind: str, name: str) -> str:
        """The object's resourceVersion, "" when it does not exist: cheap, to know whether to read it
        again."""
        found = self._objects.get((kind, name))
        return str(found["metadata"]["resourceVersion"]) if found else ""

    def apply(self, wanted: Mapping[str, Any]) -> Object:
        """Creates the object, or brings its spec, labels and annotations to what is given; status stays.

        The generation rises only when the spec changes. Annotations that are not mentioned stay, as with
        kubectl.
        """
        kind, name = _identity(wanted)
        old = self._objects.get((kind, name))
        new = self._rules(copy.deepcopy(dict(wanted)), copy.deepcopy(old))
        content = {key: value for key, value in new.items() if key not in ("status", "metadata")}
        metadata = _metadata(name, old, new.get("metadata", {}))
        if old is None or any(old.get(key) != value for key, value in content.items()):
            metadata["generation"] = int(metadata.get("generation", 0)) + 1
        status = old.get("status") if old else new.get("status")
        return self._write(kind, content | {"metadata": metadata} | ({"status": status} if status else {}))

    def write_status(self, kind: str, name: str, status: Mapping[str, Any]) -> Object:
        """Replaces the status and nothing else. An equal status is not written."""
        old = self.get(kind, name)
        if old.get("status") == status:
            return old
        return self._write(kind, self._rules(old | {"status": copy.deepcopy(dict(status))}, old))

    def annotate(self, kind: str, name: str, annotations: Mapping[str, str | None]) -> Object:
        """Sets annotations; None removes one."""
        old = self.get(kind, name)
        merged = {**old["metadata"].get("annotations", {}), **annotations}
        kept = {key: value for key, value in merged.items() if value is not None}
        return self._write(
            kind, self._rules(old | {"metadata": old["metadata"] | {"annotations": kept}}, old)
        )

    def delete(self, kind: str, name: str) -> None:
        """Deleting what does not exist is no error."""
        if self._objects.pop((kind, name), None) is not None:
            self._path(kind, name).unlink(missing_ok=True)

    def _write(self, kind: str, changed: Object) -> Object:
        """The one place that writes: to the folder first, then to memory."""
        name = changed["metadata"]["name"]
        old = self._objects.get((kind, name))
        if changed == old:
            return changed
        self._version += 1
        changed["metadata"]["resourceVersion"] = str(self._version)
        write_json(self._path(kind, name), changed)
        self._objects[kind, name] = changed
        return copy.deepcopy(changed)

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / _FOLDERS[kind] / f"{name}.json"

    @property
    def _rules(self) -> Admit:
        if self._admit is None:
            fix = "change it through the running `helios up`"
            raise StateError(str(self.folder), "was opened to be read only", fix)
        return self._admit

    def _check(self, kind: str, name: str, obj: Object) -> None:
        """An object of a release with other rules is named, not guessed at."""
        try:
            self._rules(copy.deepcopy(obj), copy.deepcopy(obj))
        except Invalid as invalid:
            fix = "restore it, or delete it to begin without it"
            problem = f"is not an object of this release ({invalid.problems[0]})"
            raise StateError(str(self._path(kind, name)), problem, fix) from None


def _read_all(folder: Path) -> dict[tuple[str, str], Object]:
    return {
        (kind, path.stem): _read(path, kind)
        for kind, name in _FOLDERS.items()
        for path in sorted((folder / name).glob("[!.]*.json"))
    }


def _read(path: Path, kind: str) -> Object:
    found = read_json(path)
    try:
        matches = found["kind"] == kind and found["metadata"]["name"] == path.stem
        int(found["metadata"]["resourceVersion"])
    except (KeyError, TypeError, ValueError):
        matches = False
    if not matches:
        fix = "restore the file, or delete it to begin without it"
        raise StateError(str(path), f"is damaged (not a {kind} named {path.stem})", fix)
    return dict(found)


def _identity(wanted: Mapping[str, Any]) -> tuple[str, str]:
    kind, name = str(wanted.get("kind")), str(wanted.get("metadata", {}).get("name", ""))
    if kind not in _FOLDERS:
        raise StateError("kind", f"{kind!r} is not kept here", f"use one of {', '.join(_FOLDERS)}")
    if not _NAME.fullmatch(name):
        raise StateError(
            "metadata.name", f"{name!r} is not a name", "use lower-case letters, digits, '-' and '.'"
        )
    return kind, name


def _metadata(name: str, old: Object | None, given: Mapping[str, Any]) -> Object:
    kept: Object = dict(old["metadata"]) if old else _new_identity()
    owners = given.get("ownerReferences", kept.get("ownerReferences"))
    return {
        **kept,
        "name": name,
        "namespace": given.get("namespace", kept.get("namespace", "default")),
        "labels": dict(given.get("labels", kept.get("labels", {}))),
        "annotations": {**kept.get("annotations", {}), **given.get("annotations", {})},
        **({"ownerReferences": owners} if owners else {}),
    }


def _new_identity() -> Object:
    return {"uid": str(uuid.uuid4()), "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
