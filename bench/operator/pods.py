"""The pods of the fleet without their processes: this one writes their status as a kubelet would, and answers
Control for all of them.

Every pod has a loopback address of its own. Which of them a call is meant for, its token says: each
HeliosDeployment has another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

import grpc
from helios_contract import wire
from helios_operator.api import ports
from helios_operator.cluster.kinds import CONFIG_MAP, POD, SECRET, Key, Object
from helios_operator.errors import ClusterError
from helios_operator.render import labels, names
from helios_operator.render.configmap import limits_of
from helios_operator.render.secret import token_of
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import control_pb2_grpc

from bench.operator.fleet import LAYERS
from tests.cluster.admin import Admin

_LOOK_SECONDS = 0.3
_SPARE = 1.1
"""Addresses for each pod that is expected."""


class Pods(control_pb2_grpc.ControlServicer):
    """An async context manager; runs the pods that the scheduler puts on `node`."""

    def __init__(self, admin: Admin, node: str, expected: int) -> None:
        self._admin = admin
        self._node = node
        self._free = _addresses(int(expected * _SPARE) + 8)
        self._telemetry: dict[str, pb.Telemetry] = {}
        self._of: dict[str, Key] = {}
        self._started: set[str] = set()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._looking: asyncio.Task[None] | None = None
        self.told: dict[Key, tuple[float, pb.Limits]] = {}
        """The newest SetLimits of a deployment, and when it came (monotonic seconds)."""
        self.looks = 0
        """How often telemetry was asked for."""

    async def __aenter__(self) -> Pods:
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)
        for address in self._free:
            self._server.add_insecure_port(f"{address}:{ports.CONTROL}")
        await self._server.start()
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._server.stop(None)

    async def delete(self, namespaces: list[str]) -> None:
        """Nobody else would end them."""

        async def end(pod: Object) -> None:
            with contextlib.suppress(ClusterError):
                await self._admin.delete_now(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

        for namespace in namespaces:
            await asyncio.gather(*(end(pod) for pod in await self._admin.list(POD, namespace)))

    # -- Control --------------------------------------------------------------------------------------------

    async def GetTelemetry(self, request: Any, context: grpc.aio.ServicerContext) -> pb.Telemetry:
        self.looks += 1
        return self._telemetry[await self._token(context)]

    async def SetLimits(self, request: Any, context: grpc.aio.ServicerContext) -> pb.SetLimitsResponse:
        token = await self._token(context)
        told = self._telemetry[token]
        told.limits.CopyFrom(request.limits)
        told.capacity.CopyFrom(_capacity(request.limits))
        self.told[self._of[token]] = (time.monotonic(), request.limits)
        return pb.SetLimitsResponse(limits=told.limits, capacity=told.capacity, seconds=0.01)

    async def _token(self, context: grpc.aio.ServicerContext) -> str:
        said = dict(context.invocation_metadata() or ())
        token = str(said.get("authorization", "")).removeprefix("Bearer ")
        if token not in self._telemetry:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "of no pod here")
        return token

    # -- the kubelet's part ---------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(ClusterError):
                waiting = await self._admin.select(POD, f"spec.nodeName={self._node},status.phase=Pending")
                new = [pod for pod in waiting if pod["metadata"]["uid"] not in self._started]
                await asyncio.gather(*(self._start(pod) for pod in new))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _start(self, pod: Object) -> None:
        """Ready at once. Its limits are those that it would have read from its volume."""
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["labels"][labels.DEPLOYMENT]
        revision = names.revision(name, int(metadata["labels"][labels.REVISION]))
        secret = await self._admin.get(SECRET, namespace, names.control_token(name))
        document = await self._admin.get(CONFIG_MAP, namespace, revision)
        if secret is None or document is None:
            return  # a kubelet would wait for them too
        token = token_of(secret)
        self._of[token] = (namespace, name)
        self._telemetry[token] = _telemetry(wire.limits_to_message(limits_of(document)))
        about = {key: metadata[key] for key in ("name", "namespace", "uid")}
        status = _status(pod, self._free.pop())
        await self._admin.apply(
            POD, {"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": status}, "status"
        )
        self._started.add(metadata["uid"])


def _addresses(count: int) -> list[str]:
    return [f"127.{60 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}" for n in range(count)]


def _telemetry(limits: pb.Limits) -> pb.Telemetry:
    """Of a pod that nobody asks for anything."""
    return pb.Telemetry(boot_id=uuid.uuid4().hex, limits=limits, capacity=_capacity(limits), ready=True)


def _capacity(limits: pb.Limits) -> pb.Capacity:
    rows = limits.max_batch_size or 64
    return pb.Capacity(
        layers_loaded=limits.layer_budget or LAYERS,
        total_layers=LAYERS,
        max_batch_size=rows,
        kv_capacity_tokens=rows * (limits.tokens_per_request or 128),
        process_start_bytes=350 * 1024 * 1024,
    )


def _status(pod: Object, address: str) -> Object:
    containers = pod["spec"]["containers"]
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")],
        "containerStatuses": [_running(container) for container in containers],
    }


def _running(container: Object) -> Object:
    about = {"name": container["name"], "image": container["image"], "imageID": ""}
    return about | {"ready": True, "started": True, "restartCount": 0, "state": {"running": {}}}
