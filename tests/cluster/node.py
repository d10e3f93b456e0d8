"""A Node without a machine: it is Ready, has room, and its lease is renewed."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from helios_operator.cluster.kinds import NODE, Object
from helios_operator.errors import ClusterError

from tests.cluster.admin import LEASE, Admin

_HEARTBEAT_SECONDS = 5


class Node:
    """An async context manager. `capacity`: all that it offers; `taint`: key and value that keep others
    away."""

    def __init__(
        self,
        admin: Admin,
        name: str,
        capacity: dict[str, str],
        labels: dict[str, str] | None = None,
        taint: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self._admin = admin
        self._capacity = dict(capacity)
        self._labels = {"kubernetes.io/arch": "amd64"} | (labels or {})
        self._taint = taint
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Node:
        await self.set_capacity({})
        await self._beat()
        self._beating = asyncio.create_task(self._heartbeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._admin.delete(NODE, "", self.name)
        await self._admin.delete(LEASE, "kube-node-lease", self.name)

    async def set_capacity(self, more: dict[str, str]) -> None:
        self._capacity |= more
        spec: dict[str, Any] = {}
        if self._taint is not None:
            key, value = self._taint
            spec = {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]}
        await self._admin.apply(NODE, self._object() | {"spec": spec})
        await self._admin.apply(NODE, self._object() | {"status": self._status()}, "status")

    def as_seen(self) -> Object:
        return self._object() | {"spec": {}, "status": self._status()}

    def _object(self) -> Object:
        metadata = {"name": self.name, "labels": self._labels}
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}

    def _status(self) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
        times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
        return {"capacity": self._capacity, "allocatable": self._capacity, "conditions": [ready | times]}

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            with contextlib.suppress(ClusterError):
                await self._beat()

    async def _beat(self) -> None:
        metadata = {"name": self.name, "namespace": "kube-node-lease"}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now}
        kind = {"apiVersion": LEASE.api_version, "kind": LEASE.name}
        await self._admin.apply(LEASE, kind | {"metadata": metadata, "spec": spec})
