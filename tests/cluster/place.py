"""One namespace of a real API server, as tests look at it: the deployments in it, what belongs to them, and
the claim that holds the models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import yaml
from helios_operator.cluster.kinds import (
    CLAIM,
    DEPLOYMENT,
    EVENT,
    JOB,
    POD,
    PROFILE,
    REVISION,
    SERVICE,
    Kind,
    Object,
)
from helios_operator.errors import ClusterError, ConflictError

from tests.cluster.admin import VOLUME, Admin


class Place:
    def __init__(self, admin: Admin, namespace: str) -> None:
        self.admin = admin
        self.namespace = namespace

    async def patch(self, name: str, spec: dict[str, Any]) -> None:
        await self.admin.merge(DEPLOYMENT, self.namespace, name, {"spec": spec})

    async def get(self, name: str = "chat") -> Object:
        found = await self.admin.get(DEPLOYMENT, self.namespace, name)
        return found or {}

    async def status(self, name: str = "chat") -> Object:
        return dict((await self.get(name)).get("status", {}))

    async def objects(self, kind: Kind, name: str = "") -> list[Object]:
        selector = f"helios.dev/deployment={name}" if name else ""
        return await self.admin.list(kind, self.namespace, selector)

    async def routed(self, name: str = "chat") -> int:
        service = await self.admin.get(SERVICE, self.namespace, name)
        return int((service or {}).get("spec", {}).get("selector", {}).get("helios.dev/revision", 0))

    async def events(self, name: str = "chat") -> list[Object]:
        found = await self.objects(EVENT)
        return [event for event in found if event["involvedObject"]["name"] == name]

    async def until(
        self, holds: Callable[[Object], Any], name: str = "chat", seconds: float = 400, what: str = ""
    ) -> Object:
        """The object, once what is asked of its status holds."""
        status: Object = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        obj = await self.get(name)
                    except ClusterError:
                        obj = {}
                    status = obj.get("status", {})
                    if status and holds(status):
                        return obj
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise AssertionError(f"{what or 'never'}: {yaml.safe_dump(status)}") from None

    async def ready(self, name: str = "chat", seconds: float = 500) -> Object:
        return await self.until(is_ready, name, seconds, "not Ready")

    async def census(self, name: str = "chat") -> dict[str, list[str]]:
        """Names of what belongs to a deployment, by kind."""
        kinds = (REVISION, JOB, SERVICE, POD)
        found = {kind.name: await self.objects(kind, name) for kind in kinds}
        found[PROFILE.name] = await self.objects(PROFILE)
        return {kind: sorted(obj["metadata"]["name"] for obj in objs) for kind, objs in found.items()}


def condition(status: Object, kind: str) -> Object:
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {"status": "Unknown"})


def is_ready(status: Object) -> bool:
    """It serves what was chosen, and nothing is under way."""
    settled = "target" not in status and status.get("active")
    told = condition(status, "Ready")["status"], condition(status, "Progressing")["status"]
    return bool(settled) and told == ("True", "False")


async def volume(
    admin: Admin, namespace: str, name: str, folder: str, mode: str = "ReadOnlyMany", size: str = "1Gi"
) -> None:
    """A static one, for the claim of that name. `folder`: what it holds, on the node."""
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{name}-{namespace}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": [mode],
            "hostPath": {"path": folder},
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    await _unless_there(admin, VOLUME, wanted)


async def claim(admin: Admin, namespace: str, name: str, folder: str = "/nonexistent") -> None:
    """A bound claim: a static volume, for the scheduler asks."""
    await volume(admin, namespace, name, folder)
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": f"{name}-{namespace}",
        },
    }
    await _unless_there(admin, CLAIM, wanted)


async def _unless_there(admin: Admin, kind: Kind, wanted: Object) -> None:
    with contextlib.suppress(ConflictError):
        await admin.create(kind, wanted)
