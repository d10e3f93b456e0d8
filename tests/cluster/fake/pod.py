"""A serving pod as the operator knows it: a Control port that takes limits and tells of them.

Started by `kubelet`, with the limits of its ConfigMap. A real gRPC server on an address of its own; it serves
nobody, so its counts are what a test says.
"""

from __future__ import annotations

import itertools
import os
import uuid
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from helios_operator.api import ports
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import control_pb2_grpc

from tests.cluster.fake.results import BACKBONE

_ADDRESSES = itertools.count(1)
"""127.100.0.0 and up, apart by process: tests run side by side, and the port is the same everywhere."""


class FakePod(control_pb2_grpc.ControlServicer):
    """`told`: fields of its telemetry, beside limits and capacity. `refuses`: what it says to new limits; ""
    takes them. `documents`: all limits that it was sent."""

    def __init__(self, limits: str, token: str) -> None:
        self.limits = json_format.Parse(limits, pb.Limits(), ignore_unknown_fields=True)
        self.told: dict[str, Any] = {"boot_id": uuid.uuid4().hex}
        self.refuses = ""
        self.refused: pb.Refusal | None = None
        self.documents: list[pb.Limits] = []
        self.address = ""
        self._token = f"Bearer {token}"
        self._server: grpc.aio.Server | None = None

    async def open(self) -> str:
        """Returns its IP address."""
        while True:
            address = _address(next(_ADDRESSES))
            server = grpc.aio.server()
            control_pb2_grpc.add_ControlServicer_to_server(self, server)
            try:
                server.add_insecure_port(f"{address}:{ports.CONTROL}")
            except RuntimeError:  # another process has it
                continue
            await server.start()
            self._server, self.address = server, address
            return address

    async def close(self) -> None:
        """As a process that ends: nobody answers any more."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def GetTelemetry(self, request: pb.GetTelemetryRequest, context: Any) -> pb.Telemetry:
        await self._check(context)
        told = pb.Telemetry(limits=self.limits, capacity=self._capacity(), ready=True, **self.told)
        if self.refused is not None:
            told.refused.CopyFrom(self.refused)
        return told

    async def SetLimits(self, request: pb.SetLimitsRequest, context: Any) -> pb.SetLimitsResponse:
        await self._check(context)
        self.documents.append(request.limits)
        if request.HasField("if_generation") and request.if_generation != self.limits.generation:
            await context.abort(grpc.StatusCode.ABORTED, f"the generation is {self.limits.generation}")
        if self.refuses:
            self.refused = pb.Refusal(generation=request.limits.generation, message=self.refuses)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refuses)
        self.limits = request.limits
        return pb.SetLimitsResponse(limits=self.limits, capacity=self._capacity(), seconds=0.01)

    def _capacity(self) -> pb.Capacity:
        return pb.Capacity(
            layers_loaded=self.limits.layer_budget or BACKBONE.layers,
            total_layers=BACKBONE.layers,
            max_batch_size=self.limits.max_batch_size or 8,
            kv_capacity_tokens=4096,
        )

    async def _check(self, context: Any) -> None:
        if dict(context.invocation_metadata()).get("authorization") != self._token:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")


def _address(number: int) -> str:
    process = os.getpid()
    return f"127.{100 + process % 100}.{process // 100 % 250}.{number % 250 + 1}"
