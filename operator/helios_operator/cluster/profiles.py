"""HeliosProfiles: rows of the history table, owned by each deployment that uses them.

Called by `apply`. Who owns what, `passes.owners` says. Owners are read and written back under the object's
version, one pass after the other: two deployments that take up the same row at once do not forget each other.
Where somebody else wrote meanwhile it is a ConflictError, and the next pass tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from helios_operator.api import parse, serialize
from helios_operator.api.rows import Row
from helios_operator.api.types import Deployment, DeploymentStatus, Owner
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import DEPLOYMENT, PROFILE, Key, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.passes import owners


class Profiles:
    def __init__(self, client: Client, mirror: Mirror) -> None:
        self._client = client
        self._mirror = mirror
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def _turn(self, namespace: str, name: str) -> asyncio.Lock:
        """Of a row: whoever has it sees what the one before has written."""
        return self._turns.setdefault((namespace, name), asyncio.Lock())

    async def write(self, row: Row, hd: Deployment) -> None:
        """Created with this deployment as an owner, or completed, and owned by it too."""
        async with self._turn(hd.namespace, row.name):
            existing = self._mirror.get(PROFILE, hd.namespace, row.name)
            obj = await self._apply(row, hd, owners.with_user(existing, hd, self._there(hd)), existing)
        if "status" in obj:
            kept = {key: obj[key] for key in ("apiVersion", "kind", "status")}
            metadata = {"name": row.name, "namespace": hd.namespace}
            answer = await self._client.apply(PROFILE, kept | {"metadata": metadata}, "status")
            self._mirror.put(PROFILE, answer)

    async def release(self, name: str, hd: Deployment, *, for_all: bool = False) -> None:
        """Deleted when no other deployment uses it, or for all of them."""
        async with self._turn(hd.namespace, name):
            existing = self._mirror.get(PROFILE, hd.namespace, name)
            if existing is None:
                return
            others = owners.others(existing, hd, self._there(hd))
            if others and not for_all:
                await self._apply(parse.profile_row(existing), hd, others, existing)
            else:
                await self._client.delete(PROFILE, hd.namespace, name)
                self._mirror.forget(PROFILE, existing)

    async def adopt(self, status: DeploymentStatus, hd: Deployment) -> None:
        """Rows that this deployment uses and that were measured for another."""
        for name in owners.used(status):
            existing = self._mirror.get(PROFILE, hd.namespace, name)
            if existing is not None and owners.lacks(existing, hd):
                async with self._turn(hd.namespace, name):
                    await self._adopt(name, hd)

    async def _adopt(self, name: str, hd: Deployment) -> None:
        existing = self._mirror.get(PROFILE, hd.namespace, name)
        if existing is not None:
            wanted = owners.with_user(existing, hd, self._there(hd))
            await self._apply(parse.profile_row(existing), hd, wanted, existing)

    async def _apply(
        self,
        row: Row,
        hd: Deployment,
        its_owners: Sequence[Owner],
        existing: Object | None,
    ) -> dict[str, Any]:
        obj = serialize.profile(row, namespace=hd.namespace, owners=its_owners)
        written = {key: value for key, value in obj.items() if key != "status"}
        if existing is not None:
            version = existing["metadata"]["resourceVersion"]
            written["metadata"] = {**written["metadata"], "resourceVersion": version}
        self._mirror.put(PROFILE, await self._client.apply(PROFILE, written))
        return obj

    def _there(self, hd: Deployment) -> set[str]:
        """Uids of the HeliosDeployments that may own a row: of those that are gone, nobody asks."""
        return {obj["metadata"]["uid"] for obj in self._mirror.all(DEPLOYMENT, hd.namespace)}
