"""The operator's lines to the pods' Control ports: in both families of addresses."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from helios_operator.api import ports
from helios_operator.cluster.controls import Controls
from helios_proto import addresses
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import control_pb2_grpc


class _Pod(control_pb2_grpc.ControlServicer):
    async def GetTelemetry(self, request: Any, context: Any) -> pb.Telemetry:
        return pb.Telemetry(boot_id="b1")


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
async def test_a_pod_is_looked_at_by_the_address_that_it_has(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = grpc.aio.server()
    control_pb2_grpc.add_ControlServicer_to_server(_Pod(), server)
    monkeypatch.setattr(ports, "CONTROL", server.add_insecure_port(addresses.join(host, 0)))
    await server.start()
    controls = Controls()
    try:
        assert await controls.look("uid", host, "token") is not None
    finally:
        await controls.close()
        await server.stop(None)
