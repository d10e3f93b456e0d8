"""A cluster in this process, with the operator at work in it: what the tests of `cluster` begin with.

    async with scene() as place:
        place.create(deployment())
        await place.ready()

`place.store` is the cluster (read and write it as another client would), `place.door` counts and fails calls,
`place.kubelet` says how pods and Jobs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any
from unittest.mock import patch

import yaml
from helios_operator.cluster import operator as operator_module
from helios_operator.cluster import refusals, shortfalls
from helios_operator.cluster import status as status_module
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    JOB,
    LABELLED,
    MODEL,
    NETWORK_POLICY,
    NODE,
    OURS,
    POD,
    PROFILE,
    REVISION,
    SECRET,
    SERVICE,
    Kind,
    Object,
)
from helios_operator.cluster.metrics import Metrics
from helios_operator.cluster.operator import Operator, Options
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.render.installation import Installation
from kubernetes.aio.client import Configuration

from tests.cluster.fake.controllers import REPLICA_SET, Controllers
from tests.cluster.fake.http import Door, seen
from tests.cluster.fake.kubelet import Kubelet
from tests.cluster.fake.objects import NAMESPACE, claim, node
from tests.cluster.fake.plain import copied
from tests.cluster.fake.store import News, Store

KINDS = (
    BUDGET_V1,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    JOB,
    MODEL,
    NETWORK_POLICY,
    NODE,
    POD,
    PROFILE,
    REPLICA_SET,
    REVISION,
    SECRET,
    SERVICE,
)
BY = Installation(
    server_image="helios-server:test", operator_namespace="helios-system", operator_name="helios"
)
_STEP_SECONDS = 0.01
_STEPS_IN_VAIN = 10
"""After so many the cluster looks again though nothing was written: a test may have changed its mind."""
PACE: tuple[tuple[ModuleType, str, Any], ...] = (
    (operator_module, "_SPACING_SECONDS", 0.005),
    (operator_module, "_AFTER_WRITE_SECONDS", 0.015),
    (operator_module, "_IN_FLUX_SECONDS", 0.05),
    (operator_module, "_CONFLICT_SECONDS", 0.025),
    (operator_module, "_LISTED_SECONDS", 0.1),
    (operator_module, "_REFUSED_SECONDS", 1.5),
    (operator_module, "_FAILURE_SECONDS", (0.05, 0.1, 0.25, 0.5, 1.5)),
    (refusals, "_PATIENCE_SECONDS", (0.05, 0.1, 0.25, 0.5, 1.5)),
    (shortfalls, "_PATIENCE", timedelta(seconds=0.5)),
    (shortfalls, "_HEARD_SECONDS", 0.5),
    (status_module, "_COSMETIC_SECONDS", 0.75),
)
"""An operator that waits a twentieth of what it does."""
SOON = Policy(retry=timedelta(seconds=0.5))
"""For tests in which a Job has to be started twice."""
PATIENCE = 240.0
"""Seconds until a wait is given up: long, for machines that have much else to do."""


class Place:
    """`operator` is None while none runs."""

    def __init__(self, store: Store, door: Door, client: Client, by: Installation) -> None:
        self.store = store
        self.door = door
        self.client = client
        self.kubelet = Kubelet(store)
        self.controllers = Controllers(store)
        self.operator: Operator | None = None
        self.by = by
        self._tasks: list[asyncio.Task[Any]] = []
        store.told.append(self._hear)
        self.deaf = False
        """True: the operator hears of nothing, as behind a broken watch."""

    # -- what runs ------------------------------------------------------------------------------------------

    async def start_operator(self, **options: Any) -> None:
        """As if the watch had listed everything."""
        given = {"poll_seconds": 0.1} | options
        self.operator = Operator(self.client, self.by, Options(**given), BUDGET_V1, Metrics())
        self._list()
        self.operator.begin()
        self._tasks.append(asyncio.create_task(self.operator.run(), name="operator"))

    async def stop_operator(self) -> None:
        self.operator = None
        for task in [task for task in self._tasks if task.get_name() == "operator"]:
            await _cancel(task)
            self._tasks.remove(task)

    def relist(self) -> None:
        """Every watch begins anew, as when the server was away."""
        assert self.operator is not None
        self._list()
        self.operator.listed()

    def _list(self) -> None:
        assert self.operator is not None
        for kind in self._watched:
            for obj in self.store.list(kind, selector=OURS if kind in LABELLED else ""):
                self.operator.seen(kind, obj)

    def start_cluster(self) -> None:
        self._tasks.append(asyncio.create_task(self._run(), name="cluster"))

    async def close(self) -> None:
        await self.stop_operator()
        for task in self._tasks:
            await _cancel(task)
        await self.kubelet.close()

    @property
    def _watched(self) -> tuple[Kind, ...]:
        return Options().watched

    async def _run(self) -> None:
        while True:
            version = self.store.version
            self.controllers.step()
            await self.kubelet.step()
            for _ in range(_STEPS_IN_VAIN):
                await asyncio.sleep(_STEP_SECONDS)
                if self.store.version != version:
                    break

    def _hear(self, news: News) -> None:
        """What kopf's watch tells."""
        if self.operator is None or self.deaf or news.kind not in self._watched:
            return
        event = seen(news, OURS if news.kind in LABELLED else "")
        if event is None:
            return
        tell = self.operator.gone if event["type"] == "DELETED" else self.operator.seen
        tell(news.kind, event["object"])

    # -- objects --------------------------------------------------------------------------------------------

    def create(self, obj: Object) -> Object:
        """As a user does."""
        kind = next(
            kind for kind in KINDS if kind.name == obj["kind"] and kind.api_version == obj["apiVersion"]
        )
        return self.store.create(kind, obj, "kubectl")

    def get(self, kind: Kind, name: str) -> Object:
        return self.store.get(kind, NAMESPACE, name)

    def find(self, kind: Kind, name: str) -> Object | None:
        return self.store.find(kind, NAMESPACE, name)

    def patch(self, name: str = "chat", **spec: Any) -> Object:
        return self.store.merge(DEPLOYMENT, NAMESPACE, name, {"spec": spec}, "kubectl")

    def status(self, name: str = "chat") -> Object:
        found = self.store.view(DEPLOYMENT, NAMESPACE, name) or {}
        return dict(copied(found.get("status") or {}))

    def condition(self, type: str, name: str = "chat") -> Object:
        found = self.status(name).get("conditions", ())
        return next(
            (c for c in found if c["type"] == type), {"status": "Unknown", "reason": "", "message": ""}
        )

    def events(self, name: str = "chat") -> list[str]:
        """`Reason: message` of each about a HeliosDeployment."""
        found = self.store.list(EVENT, NAMESPACE, fields=f"involvedObject.name={name}")
        return [f"{event['reason']}: {event['message']}" for event in found]

    def routed(self, name: str = "chat") -> int:
        """The revision that clients reach."""
        service = self.find(SERVICE, name) or {}
        return int(service.get("spec", {}).get("selector", {}).get("helios.dev/revision", 0))

    # -- waiting --------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], Any], what: str = "it never came to pass") -> Any:
        """What `holds` gives, once that is something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not (found := holds()):
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(_STEP_SECONDS)
                return found
        statuses = {obj["metadata"]["name"]: obj.get("status") for obj in self.store.list(DEPLOYMENT)}
        said = "\n".join(line for name in statuses for line in self.events(name))
        raise AssertionError(f"{what}: {yaml.safe_dump(statuses)}\n{said}")

    async def ready(self, name: str = "chat") -> Object:
        """It serves what was chosen, and nothing is under way."""
        await self.until(lambda: self._is_settled(name), f"{name} is not ready")
        return self.status(name)

    async def named(self, type: str, *words: str, name: str = "chat") -> Object:
        """The condition is not True, and its message has these words."""

        def is_told() -> bool:
            found = self.condition(type, name)
            return found["status"] != "True" and all(word in found["message"] for word in words)

        await self.until(is_told, f"{type} does not name {words}")
        return self.condition(type, name)

    async def between_passes(self) -> None:
        """None is under way, which would write over what a test writes; the next one sees that."""
        await self.until(lambda: self.operator is None or not self.operator._running, "a pass does not end")

    async def passes(self, number: int = 3) -> None:
        """At least so many more looks of the operator."""
        assert self.operator is not None
        count = self._passes() + number
        await self.until(lambda: self._passes() >= count, "no pass")

    def _passes(self) -> int:
        counted = self.operator._metrics.passes.collect() if self.operator else ()
        samples = [sample for metric in counted for sample in metric.samples]
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def _is_settled(self, name: str) -> bool:
        status = self.status(name)
        settled = "target" not in status and status.get("active")
        told = self.condition("Ready", name)["status"], self.condition("Progressing", name)["status"]
        return bool(settled) and told == ("True", "False")


@asynccontextmanager
async def scene(
    by: Installation = BY, *, operator: bool = True, policy: Policy = DEFAULT
) -> AsyncIterator[Place]:
    """With a node, the volume claim of the models, and the operator unless a test starts it itself."""
    store = Store()
    door = Door(store, KINDS)
    client = _client(await door.open())
    place = Place(store, door, client, by)
    store.create(NODE, node())
    store.merge(NODE, "", "node-1", {"status": node()["status"]}, "kubelet", "status")
    store.create(CLAIM, claim())
    before = [(module, name, getattr(module, name)) for module, name, _ in PACE]
    try:
        for module, name, value in PACE:
            setattr(module, name, value)
        place.start_cluster()
        if operator:
            await place.start_operator(policy=policy)
        yield place
    finally:
        await place.close()
        await client.close()
        await door.close()
        for module, name, value in before:
            setattr(module, name, value)


def _client(host: str) -> Client:
    """Reading whom the system trusts takes as long as a small test, and nobody is asked for a certificate."""
    with patch.dict(os.environ, SSL_CERT_FILE=os.devnull):
        return Client(Configuration(host=host))


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(task, return_exceptions=True)
