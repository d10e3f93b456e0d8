"""The status of a HeliosDeployment: written when it says something else, and not for every new figure.

Called by `apply` at the end of a pass, and by `passing` for an object about which nothing can be decided. It
composes nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from helios_operator.api import serialize
from helios_operator.api.types import Deployment, DeploymentStatus
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import DEPLOYMENT, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.render import labels
from helios_operator.render.service import endpoint

_COSMETIC_SECONDS = 15.0
"""How long new figures in messages wait; a new fact is written at once."""
_COSMETIC = ("message", "tokensPerSecond", "qualityPercent")


class StatusWriter:
    def __init__(self, client: Client, mirror: Mirror) -> None:
        self._client = client
        self._mirror = mirror
        self._written: dict[str, float] = {}

    async def write(self, hd: Deployment, status: DeploymentStatus) -> bool:
        """False when there was nothing (yet) to write."""
        return await self.write_document(hd, serialize.status(status))

    async def write_document(self, hd: Deployment, document: Object) -> bool:
        """The same of a status that only some other release understands."""
        obj = self._mirror.get(DEPLOYMENT, hd.namespace, hd.name)
        if obj is None or not self._is_due(hd.uid, obj.get("status") or {}, document):
            return False
        wanted = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {"name": hd.name, "namespace": hd.namespace},
            "status": document,
        }
        self._mirror.put(DEPLOYMENT, await self._client.apply(DEPLOYMENT, wanted, "status"))
        self._written[hd.uid] = time.monotonic()
        return True

    def forget(self, uid: str) -> None:
        self._written.pop(uid, None)

    def _is_due(self, uid: str, before: Object, after: Object) -> bool:
        if before == after:
            return False
        waited = time.monotonic() - self._written.get(uid, float("-inf"))
        return waited >= _COSMETIC_SECONDS or _gist(before) != _gist(after)


def placed(hd: Deployment, status: DeploymentStatus) -> DeploymentStatus:
    """With what only a cluster knows: the address, and the selector that autoscalers count by."""
    selector = ",".join(f"{key}={value}" for key, value in labels.serving(hd.name).items())
    return replace(status, endpoint=endpoint(hd), selector=selector)


def _gist(value: Any) -> Any:
    """Without what changes with every request."""
    if isinstance(value, dict):
        return {key: _gist(item) for key, item in value.items() if key not in _COSMETIC}
    return [_gist(item) for item in value] if isinstance(value, list) else value
