"""Objects that belong to one HeliosDeployment alone: written and deleted where they are its own, and nothing
else is touched.

Used by `surroundings` and `apply` for every object but HELIOS's own kinds. What is missing is made so that it
cannot meet another of its name; what is there is written and deleted under its uid. It renders nothing, and
decides nothing about what should be there.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from helios_operator.api.types import Deployment
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    BUDGET_V1BETA1,
    NETWORK_POLICY,
    SERVICE,
    WATCHED,
    Kind,
    Object,
    version_of,
)
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.ownership import check, is_own, says
from helios_operator.cluster.reads import Reads
from helios_operator.errors import ClusterError, ConflictError
from helios_operator.render import Manifest

_STATELESS = (NETWORK_POLICY, BUDGET_V1, BUDGET_V1BETA1)
"""Where they cannot be changed to what is wanted, they are made anew."""
_LONGEST_PAUSE_SECONDS = 60.0
_FORGIVEN_SECONDS = 600.0
_INVALID = 422
_log = logging.getLogger(__name__)


@dataclass
class Kept:
    """As it was last applied. `version`: what the server answered; `repairs`: how often it was put back, one
    after the other; none again before `until`."""

    wanted: Manifest
    version: int
    repairs: int = 0
    until: float = 0.0


class Belongings:
    def __init__(self, client: Client, mirror: Mirror, reads: Reads) -> None:
        self._client = client
        self._mirror = mirror
        self._reads = reads
        self._kept: dict[tuple[str, Kind, str], Kept] = {}
        self._absent: set[tuple[str, Kind, str]] = set()
        """Known not to be there, or to be another's: what is unwanted is looked for once."""

    async def keep(self, hd: Deployment, kind: Kind, wanted: Manifest, *, as_seen: bool = False) -> None:
        """Made where it is missing, applied where it is rendered otherwise (and once after the operator
        starts), put back where somebody changed it. NameTakenError: it is another's. `as_seen`: over what is
        known of it and nothing newer; else a ConflictError."""
        seen = found = await self._find(hd, kind, wanted["metadata"]["name"])
        if found is None:
            found = await self._make(hd, kind, wanted)
        self._check(hd, kind, found)
        kept = self._kept.get(_at(hd, kind, wanted))
        if kept is None or kept.wanted != wanted:
            if as_seen and seen is None:
                raise ConflictError(
                    f"{kind.name} {wanted['metadata']['name']}", "was made meanwhile", 409, ""
                )
            await self._apply(hd, kind, wanted, found, as_seen=as_seen)
        elif version_of(found) != kept.version and not says(found, wanted):
            await self._put_back(hd, kind, kept, found, as_seen)

    async def make_once(self, hd: Deployment, kind: Kind, wanted: Manifest) -> Object:
        """What is there, its own or another's, is given back as it is."""
        try:
            answer = await self._client.create(kind, wanted)
        except ConflictError:
            found = await self._look(kind, hd.namespace, wanted["metadata"]["name"])
            if found is None:
                raise  # it went in this moment; the next pass makes it
            answer = found
        self._know(kind, answer)
        return answer

    async def change(self, hd: Deployment, kind: Kind, name: str, changes: dict[str, Any]) -> None:
        """A few fields of one that was made once."""
        found = await self._find(hd, kind, name)
        if found is None:
            return
        self._check(hd, kind, found)
        metadata = changes.get("metadata", {}) | {"uid": found["metadata"]["uid"]}
        self._know(kind, await self._client.merge(kind, hd.namespace, name, changes | {"metadata": metadata}))

    async def remove(self, hd: Deployment, kind: Kind, name: str) -> None:
        """Another's of that name stays. What is gone is not looked for again."""
        at = (hd.uid, kind, name)
        if at in self._absent:
            return
        found = await self._find(hd, kind, name)
        if found is not None and is_own(hd, found):
            await self._client.delete(kind, hd.namespace, name, found["metadata"]["uid"])
            self._kept.pop(at, None)
            self._forget(kind, found)
        if kind not in WATCHED:
            self._absent.add(at)

    def forget(self, uid: str) -> None:
        """The HeliosDeployment is gone."""
        self._kept = {at: kept for at, kept in self._kept.items() if at[0] != uid}
        self._absent = {at for at in self._absent if at[0] != uid}

    # -- how ------------------------------------------------------------------------------------------------

    async def _find(self, hd: Deployment, kind: Kind, name: str) -> Object | None:
        """Of watched kinds only HELIOS's own are known: another's shows when it is to be made."""
        if kind in WATCHED:
            return self._mirror.get(kind, hd.namespace, name)
        return await self._reads.get(kind, hd.namespace, name)

    def _check(self, hd: Deployment, kind: Kind, found: Object) -> None:
        """Another's is read again next time: it may have gone."""
        if not is_own(hd, found):
            self._reads.forget(kind, hd.namespace, found["metadata"]["name"])
        check(hd, kind, found)

    async def _make(self, hd: Deployment, kind: Kind, wanted: Manifest) -> Object:
        """Returns what stands in its way, else what was made."""
        name = wanted["metadata"]["name"]
        self._reads.forget(kind, hd.namespace, name)
        if (there := await self._look(kind, hd.namespace, name)) is not None:
            return there
        try:
            answer = await self._client.apply(kind, wanted, force=False)
        except ConflictError:  # made by another in this moment
            if (there := await self._look(kind, hd.namespace, name)) is None:
                raise
            return there
        self._remember(hd, kind, wanted, answer)
        return answer

    async def _apply(
        self, hd: Deployment, kind: Kind, wanted: Manifest, found: Object, *, as_seen: bool = False
    ) -> None:
        uid = found["metadata"]["uid"]
        this = {"uid": uid} | ({"resourceVersion": found["metadata"]["resourceVersion"]} if as_seen else {})
        try:
            answer = await self._client.apply(kind, wanted | {"metadata": wanted["metadata"] | this})
            stands = kind not in _STATELESS or says(answer, wanted)
        except ClusterError as error:
            self._reads.forget(kind, hd.namespace, wanted["metadata"]["name"])
            if error.status != _INVALID or kind not in _STATELESS:
                raise
            stands = False
        if not stands:
            await self._client.delete(kind, hd.namespace, wanted["metadata"]["name"], uid)
            answer = await self._make(hd, kind, wanted)
        self._remember(hd, kind, wanted, answer)

    async def _put_back(self, hd: Deployment, kind: Kind, kept: Kept, found: Object, as_seen: bool) -> None:
        """Whoever changes it again and again is answered more and more seldom."""
        now = time.monotonic()
        if now < kept.until:
            return
        repairs = 1 if now > kept.until + _FORGIVEN_SECONDS else kept.repairs + 1
        _log.warning("%s %s/%s was changed: put back", kind.name, hd.namespace, found["metadata"]["name"])
        await self._apply(hd, kind, kept.wanted, found, as_seen=as_seen)
        again = self._kept[_at(hd, kind, kept.wanted)]
        again.repairs, again.until = repairs, now + min(_LONGEST_PAUSE_SECONDS, 2.0**repairs)

    async def _look(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Services may be listed and not read: the right to do both would be one more."""
        if kind is SERVICE:
            found = await self._client.list(kind, namespace, fields=f"metadata.name={name}")
            return found[0] if found else None
        return await self._client.get(kind, namespace, name)

    def _remember(self, hd: Deployment, kind: Kind, wanted: Manifest, answer: Object) -> None:
        self._kept[_at(hd, kind, wanted)] = Kept(wanted, version_of(answer))
        self._absent.discard(_at(hd, kind, wanted))
        self._know(kind, answer)

    def _know(self, kind: Kind, obj: Object) -> None:
        if kind in WATCHED:
            self._mirror.put(kind, obj)
        else:
            self._reads.put(kind, obj)

    def _forget(self, kind: Kind, obj: Object) -> None:
        if kind in WATCHED:
            self._mirror.forget(kind, obj)
        else:
            self._reads.forget(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _at(hd: Deployment, kind: Kind, wanted: Manifest) -> tuple[str, Kind, str]:
    return hd.uid, kind, wanted["metadata"]["name"]
