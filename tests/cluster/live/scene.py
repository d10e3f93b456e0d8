"""A scene on a real API server: a namespace with models, a kubelet of processes, the chart's rights, and the
operator as a process of its own, behind a proxy that can fail."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from helios_operator.api import annotations as by_hand
from helios_operator.api import parse, serialize
from helios_operator.api.identity import timing_name
from helios_operator.api.rows import TimingRow
from helios_operator.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    POD,
    PROFILE,
    REVISION,
    SECRET,
    SERVICE,
    Kind,
    Object,
)
from helios_operator.cluster.surroundings import budget_kind
from helios_operator.local.front import Front
from helios_operator.local.processes import Process, helios_command

from tests.cluster.admin import (
    API_SERVICE,
    CLUSTER_BINDING,
    CLUSTER_ROLE,
    CRD,
    NAMESPACE,
    VOLUME,
    Admin,
    as_account,
    operator_account,
)
from tests.cluster.fake.objects import AS_PUBLISHED
from tests.cluster.place import Place, claim, condition, is_ready
from tests.cluster.pod_runner import LABEL, PodRunner
from tests.cluster.proxy import Proxy, Record
from tests.cluster.slower import slower

RECORD = Record()
"""Of all scenes of a session."""
PROMPTS = [
    "The whale swam on through the night.",
    "A ship without a crew is only wood.",
    "Some years ago, never mind how long precisely.",
]
CRDS = Path(__file__).parents[3] / "crds"

__all__ = ["Measured", "Scene", "claim", "condition", "is_ready", "scene"]


def kubeconfig() -> Path:
    return Path(os.environ["KUBECONFIG"])


async def install(admin: Admin) -> None:
    """The CRDs, as a fresh installation has them."""
    for path in sorted(CRDS.glob("*.yaml")):
        await admin.apply(CRD, yaml.safe_load(path.read_text()))
    async with asyncio.timeout(60):
        while not await _served(admin):
            await asyncio.sleep(0.2)


async def _served(admin: Admin) -> bool:
    """By the server that knows CEL, where there are two."""
    service = await admin.get(API_SERVICE, "", f"{DEPLOYMENT.version}.{DEPLOYMENT.group}")
    conditions = (service or {}).get("status", {}).get("conditions", [])
    if not any(c["type"] == "Available" and c["status"] == "True" for c in conditions):
        return False
    if "kube-aggregator.kubernetes.io/automanaged" in str((service or {})["metadata"].get("labels", {})):
        await asyncio.sleep(1.0)
    return await admin.serves(DEPLOYMENT.group, DEPLOYMENT.version)


class Scene(Place):
    """A place with pods of its own. `operator` is None while it does not run. `everywhere`: it watches all
    namespaces."""

    def __init__(
        self, admin: Admin, namespace: str, folder: Path, runner: PodRunner, proxy: Proxy, everywhere: bool
    ) -> None:
        super().__init__(admin, namespace)
        self.folder = folder
        self.runner = runner
        self.proxy = proxy
        self.operator: Process | None = None
        self._everywhere = everywhere
        self._config: Path | None = None
        self._fronts: dict[str, Front] = {}
        self._volumes: set[str] = set()

    # -- the operator ---------------------------------------------------------------------------------------

    async def start_operator(self, *arguments: str) -> None:
        """As the chart's account, with the chart's rights."""
        config = self._config or await self._account()
        watched = () if self._everywhere else ("--watch-namespace", self.namespace)
        command = helios_command(
            "operator", "--server-image", "helios-server:test", "--operator-namespace", self.namespace,
            "--operator-name", "helios", *watched, "--http-host", "127.0.0.1", "--http-port", "0",
            "--poll-seconds", "1", *arguments,
        )  # fmt: skip
        before = os.environ["KUBECONFIG"]
        os.environ["KUBECONFIG"] = str(config)
        try:
            self.operator = await Process.start(command, log=self.folder / "operator.log")
        finally:
            os.environ["KUBECONFIG"] = before

    async def kill_operator(self) -> None:
        if self.operator is not None:
            self.operator.kill()
            await self.operator.wait()
            self.operator = None

    async def page(self, path: str) -> tuple[int, str]:
        """Of the operator's own: status and text."""
        said = (self.folder / "operator.log").read_text()
        address = re.findall(r"listening on (\S+)", said)[-1]
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
            return answer.status, await answer.text()

    async def _account(self) -> Path:
        watched = () if self._everywhere else (self.namespace,)
        token = await operator_account(self.admin, self.namespace, watched)
        target = self.folder / "operator.kubeconfig"
        self._config = as_account(kubeconfig(), token, target, self.proxy.address)
        return self._config

    # -- objects --------------------------------------------------------------------------------------------

    def deployment(self, name: str = "chat", **spec: Any) -> Object:
        """Two tiny backbones; nothing changes by itself once the first choice is made."""
        limits = spec.pop("resources", {})
        container = {"name": "helios-server", "resources": {"limits": limits}}
        wanted = {
            "candidates": [
                {"name": "deep", "uri": "pvc://models/deep", "exitLayers": [2], **AS_PUBLISHED},
                {"name": "flat", "uri": "pvc://models/flat", "exitLayers": [2], **AS_PUBLISHED},
            ],
            "slo": {"minQualityPercent": 30},
            "workload": {"isl": 16, "osl": 16, "concurrency": 4},
            "limits": {"memoryMiB": 1500},
            "profiling": {"prompts": {"inline": PROMPTS}, "maxParallelism": 2},
            "reassessment": {"auditPercent": 1, "everyRequests": 100000},
            "rollout": {"scaleDownDelaySeconds": 0, "drain": {"preStopSeconds": 0, "timeoutSeconds": 60}},
            "template": {
                "spec": {
                    "nodeSelector": {LABEL: self.namespace},
                    "tolerations": [{"key": LABEL, "operator": "Exists"}],
                    "containers": [container],
                }
            },
        } | spec
        return {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": wanted,
        }

    async def create(self, obj: Object, measured: Measured | None = None) -> Object:
        """With `measured`: as if an operator had been here before, and only the choice was left."""
        made = await self.admin.create(DEPLOYMENT, obj)
        if measured is not None:
            for row in measured.rows:
                await self._write(PROFILE, row, made)
            found = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}
            await self.admin.apply(
                DEPLOYMENT, found | {"status": {"candidates": measured.candidates}}, "status"
            )
        return made

    async def _write(self, kind: Kind, row: Object, user: Object) -> None:
        metadata = {"name": row["metadata"]["name"], "namespace": self.namespace}
        about = {"apiVersion": row["apiVersion"], "kind": row["kind"], "metadata": metadata}
        owner = {"apiVersion": user["apiVersion"], "kind": user["kind"], "name": user["metadata"]["name"]}
        owned = {"ownerReferences": [owner | {"uid": user["metadata"]["uid"]}]}
        await self.admin.apply(kind, about | {"metadata": metadata | owned, "spec": row["spec"]})
        await self.admin.apply(kind, about | {"status": row["status"]}, "status")

    async def make(self, kind: Kind, name: str, content: Object) -> None:
        """What a user has beside the deployment."""
        metadata = {"name": name, "namespace": self.namespace}
        about = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        await self.admin.apply(kind, about | content)

    async def switch(self, name: str, candidate: str) -> None:
        """As `helios switch` asks for it."""
        value = by_hand.switch_value(candidate, datetime.now(UTC))
        annotations = {"annotations": {by_hand.SWITCH_TO: value}}
        await self.admin.merge(DEPLOYMENT, self.namespace, name, {"metadata": annotations})

    async def restarts(self, name: str = "chat") -> dict[str, int]:
        """Of the serving pods, by uid."""
        found = await self.objects(POD, name)
        told = {pod["metadata"]["uid"]: pod["status"].get("containerStatuses", []) for pod in found}
        return {uid: sum(status["restartCount"] for status in each) for uid, each in told.items()}

    async def front(self, name: str = "chat") -> str:
        """host:port of what a ClusterIP would be."""
        if name not in self._fronts:
            self._fronts[name] = Front(lambda: self.runner.backends(name))
            await self._fronts[name].open("127.0.0.1", 0)
        return self._fronts[name].address

    async def close(self) -> None:
        for front in self._fronts.values():
            await front.close()
        await self.kill_operator()

    # -- what exists ----------------------------------------------------------------------------------------

    async def left_behind(self) -> list[str]:
        """All that an operator may have made here; only HELIOS works in this namespace."""
        made = (REVISION, JOB, POD, CONFIG_MAP, SECRET, SERVICE, PROFILE, NETWORK_POLICY)
        found = []
        for kind in (*made, await budget_kind(self.admin)):
            found += [(kind.name, obj["metadata"]["name"]) for obj in await self.objects(kind)]
        return sorted(f"{kind} {name}" for kind, name in found if not _is_the_clusters(kind, name))

    async def alone(self, name: str = "chat", seconds: float = 120) -> dict[str, list[str]]:
        """The census, once one Deployment with one pod is left of it: pods end after what they belonged to is
        gone, and so after it is Ready."""
        census: dict[str, list[str]] = {}
        try:
            async with asyncio.timeout(seconds):
                while not len(census.get("Deployment", ())) == len(census.get("Pod", ())) == 1:
                    await asyncio.sleep(0.25)
                    census = await self.census(name)
        except TimeoutError:
            raise AssertionError(f"more or less than one pod of one Deployment: {census}") from None
        return census

    async def until_told(self, words: str, seconds: float = 60) -> None:
        """By an Event's reason or message: it is written after what it tells of."""
        told: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while not any(words in said for said in told):
                    await asyncio.sleep(0.25)
                    told = [f"{event['reason']}: {event['message']}" for event in await self.events()]
        except TimeoutError:
            raise AssertionError(f"no event says {words!r}: {told}") from None

    async def until_gone(self, seconds: float = 200) -> None:
        """Nothing of it is left."""
        left: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while left := await self.left_behind():
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise AssertionError(f"left behind: {', '.join(left)}") from None

    # -- claims ---------------------------------------------------------------------------------------------

    async def claim(self, name: str) -> None:
        """A bound claim: a static volume, for the scheduler asks."""
        self._volumes.add(f"{name}-{self.namespace}")
        await claim(self.admin, self.namespace, name)

    async def clear(self) -> None:
        """What a namespace does not take with it."""
        await self.close()
        for kind in (CLUSTER_ROLE, CLUSTER_BINDING):
            await self.admin.delete(kind, "", f"helios-{self.namespace}")
        for name in self._volumes:
            await self.admin.delete(VOLUME, "", name)


@dataclass(frozen=True)
class Measured:
    """What an operator found out: rows of the history table, and `status.candidates`."""

    rows: list[Object]
    candidates: list[Object]

    @classmethod
    async def of(cls, scene: Scene, name: str = "chat") -> Measured:
        return cls(await scene.objects(PROFILE), (await scene.status(name))["candidates"])

    def on(self, accelerator: str) -> Measured:
        """The same figures, of a machine with that accelerator."""
        return Measured([_on(row, accelerator) for row in self.rows], self.candidates)

    def slower(self, uri: str, times: int) -> Measured:
        """A model's steps take so many times as long."""
        return replace(self, rows=[slower(row, uri, times) for row in self.rows])


def _on(obj: Object, accelerator: str) -> Object:
    row = parse.profile_row(obj)
    if not isinstance(row, TimingRow):
        return obj
    hardware = replace(row.identity.hardware, accelerator=accelerator, accelerators=1)
    moved = replace(row.identity, hardware=hardware)
    return serialize.profile(replace(row, name=timing_name(moved), identity=moved))


def _is_the_clusters(kind: str, name: str) -> bool:
    """What controllers put into every namespace."""
    return (kind, name) == ("ConfigMap", "kube-root-ca.crt") or (kind == "Secret" and "-token-" in name)


@asynccontextmanager
async def scene(
    folder: Path, claims: Path, capacity: dict[str, str] | None = None, *, everywhere: bool = False
) -> AsyncIterator[Scene]:
    """`everywhere`: with an operator of all namespaces."""
    namespace = f"helios-test-{uuid.uuid4().hex[:6]}"
    async with AsyncExitStack() as stack:
        admin = await Admin.connect()
        assert isinstance(admin, Admin)
        stack.push_async_callback(admin.close)
        await install(admin)
        await admin.apply(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        )
        stack.push_async_callback(admin.delete, NAMESPACE, "", namespace)
        kubelet = PodRunner(admin, namespace, folder / "pods", claims, capacity)
        runner = await stack.enter_async_context(kubelet)
        proxy = await stack.enter_async_context(Proxy(kubeconfig(), RECORD))
        made = Scene(admin, namespace, folder, runner, proxy, everywhere)
        stack.push_async_callback(made.clear)
        await made.claim("models")
        yield made
