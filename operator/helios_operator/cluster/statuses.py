"""Writes statuses to a server whose CRDs may be older than this operator: what they do not declare is left
out, and said once.

Called by `status` and `apply`. Servers either drop such a field without a word, or refuse the whole document
and name it. It compares nothing with what stands, and decides nothing about what is said.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import Kind, Object
from helios_operator.errors import ClusterError

_UNDECLARED = re.compile(r"(\.status\S*): field not declared in schema")
_KEYS = re.compile(r'\[(?:[^\]"]|"[^"]*")*\]')
"""Of an item of a list, within a path."""
_BELIEVED_SECONDS = 600.0
"""Then the field is tried again: somebody may have applied the CRDs meanwhile."""
_log = logging.getLogger(__name__)
Path = tuple[str, ...]


class Statuses:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._undeclared: dict[Kind, dict[Path, float]] = {}
        self._said: set[tuple[Kind, Path]] = set()
        self._last: dict[str, tuple[Object, Object]] = {}
        """By uid: the document that was sent last, and what the server made of it."""

    def standing(self, obj: Object) -> Object:
        """The document of which the object's status is what the server kept: what was sent last, where nobody
        changed it since."""
        found = obj.get("status") or {}
        sent, kept = self._last.get(obj["metadata"].get("uid", ""), (found, found))
        return sent if kept == found else found

    def forget(self, uid: str) -> None:
        self._last.pop(uid, None)

    async def apply(self, kind: Kind, namespace: str, name: str, document: Object) -> Object:
        """The object, as the server answered."""
        while True:
            sent = self._known_to(kind, document)
            try:
                answer = await self._apply(kind, namespace, name, sent)
            except ClusterError as error:
                paths = undeclared(error.problem)
                if not paths or all(path in self._undeclared.get(kind, {}) for path in paths):
                    raise
                until = time.monotonic() + _BELIEVED_SECONDS
                self._undeclared.setdefault(kind, {}).update(dict.fromkeys(paths, until))
                self._say(kind, paths)
                continue
            kept = answer.get("status") or {}
            self._say(kind, list(lost(sent, kept)))
            self._last[answer["metadata"].get("uid", "")] = (document, kept)
            return answer

    async def _apply(self, kind: Kind, namespace: str, name: str, document: Object) -> Object:
        metadata = {"name": name, "namespace": namespace}
        about = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        return await self._client.apply(kind, about | {"status": document}, "status")

    def _known_to(self, kind: Kind, document: Object) -> Object:
        now = time.monotonic()
        paths = {path: until for path, until in self._undeclared.get(kind, {}).items() if now < until}
        self._undeclared[kind] = paths
        kept = copy.deepcopy(document)
        for path in paths:
            _remove(kept, path)
        return kept

    def _say(self, kind: Kind, paths: Sequence[Path]) -> None:
        new = [path for path in dict.fromkeys(paths) if (kind, path) not in self._said]
        self._said.update((kind, path) for path in new)
        if new:
            named = ", ".join("status." + ".".join(path) for path in new)
            _log.warning(
                "CrdsOutdated: the server does not keep %s of a %s: apply the CRDs of this release",
                named,
                kind.name,
            )

    def lost(self, kind: Kind) -> tuple[str, ...]:
        """Fields that the server did not keep so far, for people."""
        return tuple(sorted("status." + ".".join(path) for each, path in self._said if each == kind))


def undeclared(problem: str) -> list[Path]:
    """The fields of the status that a refusal names."""
    found = [_KEYS.sub("", path) for path in _UNDECLARED.findall(problem)]
    return [tuple(path.split(".")[2:]) for path in found if path.count(".") > 1]


def lost(sent: Any, kept: Any, path: Path = ()) -> Iterator[Path]:
    """What was sent and did not come back. An empty value may go without a word."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if key in kept:
                yield from lost(value, kept[key], (*path, key))
            elif value not in (None, "", [], {}):
                yield (*path, key)
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for item, other in zip(sent, kept, strict=True):
            yield from lost(item, other, path)


def _remove(value: Any, path: Path) -> None:
    if isinstance(value, list):
        for item in value:
            _remove(item, path)
    elif isinstance(value, dict):
        if len(path) == 1:
            value.pop(path[0], None)
        elif path[0] in value:
            _remove(value[path[0]], path[1:])
