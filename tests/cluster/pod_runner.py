"""A kubelet for tests: the pods of one namespace as processes of this machine, behind loopback addresses of
their own.

It makes a Node, keeps its lease, and does for each pod that the scheduler binds to it what a kubelet would:
volumes, start, probes, restarts with back-off, SIGTERM on deletion, status, termination message. Everything
else (scheduling, Jobs, ReplicaSets, garbage collection) is the cluster's own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helios_operator.cluster.kinds import CONFIG_MAP, POD, SECRET, SERVICE, Object
from helios_operator.errors import ClusterError
from helios_operator.local.probes import probe
from helios_operator.local.processes import Process, helios_command

from tests.cluster.admin import Admin
from tests.cluster.node import Node

LABEL = "helios.dev/test-node"
_LOOK_SECONDS = 0.25
_BACKOFF_SECONDS = 1.0
_LOOKS_A_REFRESH = 10
"""At a pod, between two looks at its ConfigMaps: some seconds."""
_ADDRESSES = itertools.count(1)
_NETWORK = 10 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Of 127.0.0.0/8: pods of tests side by side must not share an address."""


@dataclass
class Running:
    """One pod as a process. `ended`: exit code and last words of its last process; `wants`: what its
    container cannot be made without."""

    pod: Object
    ip: str
    folder: Path
    process: Process | None = None
    ready: bool = False
    restarts: int = 0
    ended: tuple[int, str] | None = None
    wants: str = ""
    life: asyncio.Task[None] | None = None
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def container(self) -> Object:
        return dict(self.pod["spec"]["containers"][0])


class PodRunner:
    """`claims`: the folder in which a volume claim is a folder. `capacity`: what the node offers."""

    def __init__(
        self, admin: Admin, namespace: str, folder: Path, claims: Path, capacity: dict[str, str] | None = None
    ) -> None:
        self.admin = admin
        self.namespace = namespace
        offered = {"cpu": "8", "memory": "64Gi", "pods": "100"} | (capacity or {})
        self.node = Node(admin, f"node-of-{namespace}", offered, {LABEL: namespace}, taint=(LABEL, namespace))
        self._folder = folder
        self.claims = claims
        self.pods: dict[str, Running] = {}
        self._service: dict[str, Object] = {}
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PodRunner:
        await self.node.__aenter__()
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(self._kill(running) for running in self.pods.values()))
        await self.node.__aexit__()

    # -- seen by tests --------------------------------------------------------------------------------------

    def backends(self, name: str) -> list[tuple[str, int]]:
        """Where a ClusterIP would send new connections: ready pods that the Service selects."""
        selector = self._service.get(name, {}).get("spec", {}).get("selector") or {}
        return [
            (running.ip, 8033)
            for running in self.pods.values()
            if running.ready
            and not running.pod["metadata"].get("deletionTimestamp")
            and selector.items() <= running.pod["metadata"]["labels"].items()
        ]

    def serving(self, revision: int | None = None) -> list[Running]:
        """Of a revision, or of all."""
        found = [(r, r.pod["metadata"]["labels"].get("helios.dev/revision")) for r in self.pods.values()]
        return [r for r, number in found if number and revision in (None, int(number))]

    def kill(self, name: str) -> None:
        """As a process dies: without a word."""
        process = self.pods[name].process
        if process is not None:
            process.kill()

    async def slow_down(self, name: str, stop_seconds: float, run_seconds: float) -> None:
        """As a busy neighbour does it, until it is cancelled or the pod ends."""
        process = self.pods[name].process
        with contextlib.suppress(ProcessLookupError):
            while process is not None and process.exit_code is None:
                try:
                    os.killpg(process.pid, signal.SIGSTOP)
                    await asyncio.sleep(stop_seconds)
                finally:
                    os.killpg(process.pid, signal.SIGCONT)
                await asyncio.sleep(run_seconds)

    async def set_capacity(self, more: dict[str, str]) -> None:
        await self.node.set_capacity(more)

    # -- the kubelet's part ---------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(ClusterError):
                services = await self.admin.list(SERVICE, self.namespace)
                self._service = {obj["metadata"]["name"]: obj for obj in services}
                await self._sync(await self.admin.list(POD, self.namespace))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _sync(self, pods: list[Object]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if pod["spec"].get("nodeName") != self.node.name:
                continue
            known = self.pods.get(pod["metadata"]["name"])
            if known is None or known.pod["metadata"]["uid"] != uid:
                self._start(pod)
            else:
                known.pod = pod
                if pod["metadata"].get("deletionTimestamp") and known.life and known.life.get_name() != "end":
                    known.life.cancel()
                    known.life = asyncio.create_task(self._end(known), name="end")
        for name, running in list(self.pods.items()):
            if running.pod["metadata"]["uid"] not in there:
                await self._kill(self.pods.pop(name))

    def _start(self, pod: Object) -> None:
        number = next(_ADDRESSES)
        name = pod["metadata"]["name"]
        ip = f"127.{_NETWORK}.{number // 250}.{number % 250 + 1}"
        running = Running(pod, ip, self._folder / f"{name}-{number}")
        self.pods[name] = running
        work = self._serve(running) if pod["spec"]["restartPolicy"] == "Always" else self._finish(running)
        running.life = asyncio.create_task(work, name=name)

    async def _serve(self, running: Running) -> None:
        """A container that is started again whenever it ends."""
        while True:
            await self._spawn(running)
            watching = asyncio.create_task(self._watch(running))
            try:
                code = await running.process.wait() if running.process else 1
            finally:
                watching.cancel()
            running.ready = False
            running.ended = (code, running.process.last_words if running.process else "")
            running.process = None
            running.restarts += 1
            await self._tell(running)
            await asyncio.sleep(_BACKOFF_SECONDS)

    async def _finish(self, running: Running) -> None:
        """A container that runs once."""
        await self._spawn(running)
        await self._tell(running)
        code = await running.process.wait() if running.process else 1
        log = running.folder / "root/dev/termination-log"
        said = log.read_text() if log.exists() else ""
        running.ended = (code, said or (running.process.last_words if running.process else ""))
        running.process = None
        await self._tell(running)

    async def _watch(self, running: Running) -> None:
        """With the probe's own patience: two failures in a row."""
        failures, looks = 0, itertools.count(1)
        while True:
            if next(looks) % _LOOKS_A_REFRESH == 0:
                await self._refresh(running)
            failures = 0 if await probe(running.ip, 8035, "/readyz", 5.0) == 200 else failures + 1
            running.ready = failures == 0 or (running.ready and failures < 2)
            await self._tell(running)
            await asyncio.sleep(0.2)

    async def _end(self, running: Running) -> None:
        """SIGTERM, grace, gone."""
        grace = float(running.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        if running.process is not None:
            await running.process.stop(grace)
        running.ready = False
        while running.name in self.pods:  # a loaded server may not answer at once
            with contextlib.suppress(ClusterError):
                await self.admin.delete_now(POD, self.namespace, running.name)
            await asyncio.sleep(1)

    async def _kill(self, running: Running) -> None:
        if running.life is not None:
            running.life.cancel()
            await asyncio.gather(running.life, return_exceptions=True)
        if running.process is not None:
            await running.process.stop(0)

    async def _spawn(self, running: Running) -> None:
        await self._await_environment(running)
        root = await self._mount(running)
        words = [word.replace("$$(", "$(") for word in running.container["command"]]
        words += running.container.get("args", [])
        places = [mount["mountPath"] for mount in running.container["volumeMounts"]]
        places += ["/volumes", "/dev/termination-log"]
        told = [f"{root}{w}" if any(w == p or w.startswith(f"{p}/") for p in places) else w for w in words]
        told = [running.ip if word == "::" else word for word in told]
        running.process = await Process.start(helios_command(*told[1:]), log=running.folder / "log")

    async def _await_environment(self, running: Running) -> None:
        """Every Secret that a variable comes from, in the kubelet's words."""
        variables = running.container.get("env") or ()
        for source in (each.get("valueFrom", {}).get("secretKeyRef") for each in variables):
            while source and (wants := await self._lacks(source)):
                running.wants = wants
                await self._tell(running)
                await asyncio.sleep(0.5)
        running.wants = ""

    async def _lacks(self, source: Object) -> str:
        with contextlib.suppress(ClusterError):
            found = await self.admin.get(SECRET, self.namespace, source["name"])
            if found is None:
                return f'secret "{source["name"]}" not found'
            if source["key"] not in found.get("data", {}):
                return f"couldn't find key {source['key']} in Secret {self.namespace}/{source['name']}"
            return ""
        return "the API server does not answer"

    async def _mount(self, running: Running) -> Path:
        """The container's volumes below a folder that stands for its root."""
        root = running.folder / "root"
        (root / "dev").mkdir(parents=True, exist_ok=True)
        (root / "volumes").mkdir(exist_ok=True)
        volumes = {volume["name"]: volume for volume in running.pod["spec"]["volumes"]}
        for mount in running.container["volumeMounts"]:
            place = root / mount["mountPath"].lstrip("/")
            volume = volumes[mount["name"]]
            if claim := volume.get("persistentVolumeClaim"):
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to(self.claims / claim["claimName"])
                continue
            place.mkdir(parents=True, exist_ok=True)
            for name, content in [pair async for pair in self._content(volume)]:
                (place / name).write_bytes(content)
        return root

    async def _refresh(self, running: Running) -> None:
        """What ConfigMaps hold now, each file at once, as a kubelet brings it by and by."""
        sources = {v["name"]: v["configMap"] for v in running.pod["spec"]["volumes"] if "configMap" in v}
        for mount in running.container["volumeMounts"]:
            source = sources.get(mount["name"])
            with contextlib.suppress(ClusterError):
                found = source and await self.admin.get(CONFIG_MAP, self.namespace, source["name"])
                for name, content in _files(source, found) if found else ():
                    file = running.folder / "root" / mount["mountPath"].lstrip("/") / name
                    if not file.exists() or file.read_bytes() != content:
                        fresh = file.with_name(f"..{name}")
                        fresh.write_bytes(content)
                        fresh.rename(file)

    async def _content(self, volume: Object) -> Any:
        if source := volume.get("configMap"):
            for pair in _files(source, await self._await(CONFIG_MAP, source["name"])):
                yield pair
        elif source := volume.get("secret"):
            found = await self._await(SECRET, source["secretName"])
            for name, text in found["data"].items():
                yield name, base64.b64decode(text)

    async def _await(self, kind: Any, name: str) -> Object:
        while True:
            with contextlib.suppress(ClusterError):
                if found := await self.admin.get(kind, self.namespace, name):
                    return found
            await asyncio.sleep(0.5)

    async def _tell(self, running: Running) -> None:
        """Writes the pod's status when it says something else."""
        status = dict(_status(running))
        if status == running.told:
            return
        metadata = {"name": running.name, "namespace": self.namespace, "uid": running.pod["metadata"]["uid"]}
        with contextlib.suppress(ClusterError):
            obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
            await self.admin.apply(POD, obj, "status")
            running.told = status


def _files(source: Object, found: Object) -> Iterator[tuple[str, bytes]]:
    """Names and contents, of a volume of a ConfigMap."""
    whole = [{"key": key, "path": key} for key in found["data"]]
    for item in source.get("items") or whole:
        yield item["path"], found["data"][item["key"]].encode()


def _status(running: Running) -> Iterator[tuple[str, Any]]:
    once = running.pod["spec"]["restartPolicy"] == "Never"
    state, phase = _state(running, once)
    ready = running.ready and running.process is not None
    flag = "True" if ready else "False"
    yield "phase", phase
    yield "podIP", running.ip
    yield "podIPs", [{"ip": running.ip}]
    yield "conditions", [{"type": kind, "status": flag} for kind in ("Ready", "ContainersReady")]
    container = running.container
    yield (
        "containerStatuses",
        [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": ready,
                "started": running.process is not None,
                "restartCount": running.restarts,
                "state": state,
            }
            | ({"lastState": {"terminated": _terminated(running)}} if running.restarts else {})
        ],
    )


def _state(running: Running, once: bool) -> tuple[Object, str]:
    if running.process is not None:
        return {"running": {}}, "Running"
    if running.wants:
        return {"waiting": {"reason": "CreateContainerConfigError", "message": running.wants}}, "Pending"
    if running.ended is None:
        return {"waiting": {"reason": "ContainerCreating"}}, "Pending"
    if once:
        return {"terminated": _terminated(running)}, "Failed" if running.ended[0] else "Succeeded"
    return {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting container"}}, "Running"


def _terminated(running: Running) -> Object:
    code, words = running.ended or (1, "")
    return {"exitCode": code % 256, "reason": "Error" if code else "Completed", "message": words}
