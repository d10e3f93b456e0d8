"""The client of one pod's Control port. Every call has a deadline; what fails is said, never raised as
gRPC's own error.

Made by the runtime for each pod that listens, closed with it. It retries nothing: the next pass looks again.
"""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
from helios_contract import wire
from helios_contract.limits import Limits
from helios_contract.telemetry import Telemetry
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import control_pb2_grpc

from helios_operator.errors import ControlError

_LOOK_SECONDS = 2.0
_CHANGE_SECONDS = 600.0
"""A change may wait for a model to be read; it is applied or refused, and the pod answers either way."""
_LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
)


class ControlClient:
    """Speaks to the pod at `address` (host:port) with its token."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._closed = False
        self._metadata = (("authorization", f"Bearer {token}"),)
        options = [
            ("grpc.max_receive_message_length", _LARGEST_ANSWER_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),  # no proxy reaches a pod
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = control_pb2_grpc.ControlStub(self._channel)

    async def telemetry(self) -> Telemetry | None:
        """None: not reached in time."""
        try:
            message = await self._stub.GetTelemetry(
                pb.GetTelemetryRequest(), timeout=_LOOK_SECONDS, metadata=self._metadata
            )
        except grpc.aio.AioRpcError:
            return None
        except asyncio.CancelledError:
            if self._closed and not _being_cancelled():  # how gRPC tells a caller that its channel was closed
                return None
            raise
        return wire.telemetry_from_message(message)

    async def set_limits(self, limits: Limits, if_generation: int) -> float:
        """Returns the seconds from the call to the step that runs under the limits. `if_generation`: what the
        pod is known to have; it takes nothing from whoever knows less. ControlError when they do not hold."""
        request = pb.SetLimitsRequest(limits=wire.limits_to_message(limits), if_generation=if_generation)
        try:
            answer = await self._stub.SetLimits(request, timeout=_CHANGE_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _failed(self.address, error) from None
        return float(answer.seconds)

    async def close(self) -> None:
        self._closed = True
        await self._channel.close()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(address: str, error: grpc.aio.AioRpcError) -> ControlError:
    details = error.details() or error.code().name
    if error.code() in _REFUSALS:
        return ControlError("limits", f"refused by {address}: {details}", "see `helios why`", refused=True)
    if error.code() is grpc.StatusCode.ABORTED:
        problem = f"{address} has newer limits ({details})"
        return ControlError("limits", problem, "its limits are read again at the next pass, then updated")
    return ControlError(
        "limits", f"{address} did not answer ({details})", "the limits are sent again at the next pass"
    )
