"""Events about a HeliosDeployment: one per transition, in the words that decided it.

Called by `apply` and `operator`. Events are for people: one that cannot be written is logged and lost, and
nothing reads them back to decide.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from helios_operator.api.serialize import API_VERSION
from helios_operator.api.types import Deployment
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import EVENT
from helios_operator.errors import ClusterError
from helios_operator.render import labels
from helios_operator.render.owner import KIND

NORMAL, WARNING = "Normal", "Warning"
ACTION = "helios.dev/action"
"""Annotation of an Event: what was done, where the message says why."""
NUMBERS = "helios.dev/numbers"
"""Annotation of an Event: the decision's numbers, as JSON."""
_MESSAGE = 1024
"""Characters, the API server's limit."""
_log = logging.getLogger(__name__)


class Events:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._last: dict[str, tuple[str, str]] = {}

    async def say(
        self, hd: Deployment, type: str, reason: str, message: str, about: Mapping[str, str] | None = None
    ) -> None:
        """What was the last thing said of it is not said again."""
        if self._last.get(hd.uid) == (reason, message):
            return
        self._last[hd.uid] = (reason, message)
        _log.info("%s/%s %s: %s", hd.namespace, hd.name, reason, message)
        try:
            await self._client.create(EVENT, event(hd, type, reason, message, about or {}))
        except ClusterError as error:
            _log.warning("event of %s/%s is lost: %s", hd.namespace, hd.name, error)

    def forget(self, uid: str) -> None:
        self._last.pop(uid, None)


def event(hd: Deployment, type: str, reason: str, message: str, about: Mapping[str, str]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {
        "name": f"{hd.name}.{uuid.uuid4().hex[:16]}",
        "namespace": hd.namespace,
        "labels": {labels.DEPLOYMENT: hd.name},
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": metadata | ({"annotations": dict(about)} if about else {}),
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": hd.namespace,
            "name": hd.name,
            "uid": hd.uid,
        },
        "type": type,
        "reason": str(reason),
        "message": message[:_MESSAGE],
        "source": {"component": labels.MANAGER},
        "reportingComponent": f"helios.dev/{labels.MANAGER}",
        "reportingInstance": os.environ.get("POD_NAME", labels.MANAGER),
        "action": "Reconcile",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
