"""What `grpc-status-details-bin` says of an error: when to come back.

Called by `errors`. google.rpc.Status and RetryInfo are described here, in a pool of their own: the
package that has them would be one more requirement.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError

KEY = "grpc-status-details-bin"
_RETRY_INFO = "google.rpc.RetryInfo"


def retry_after(details: bytes) -> float | None:
    """Seconds; None when nothing is said of them."""
    try:
        status = _Status.FromString(details)
        for detail in status.details:
            if detail.TypeName() == _RETRY_INFO:
                said = _RetryInfo.FromString(detail.value).retry_delay
                return float(said.seconds + said.nanos / 1e9)
    except DecodeError:
        pass  # of a server that means something else by it
    return None


def _described() -> tuple[Any, Any]:
    """The classes of Status and RetryInfo."""
    file = descriptor_pb2.FileDescriptorProto(name="helios_client/status_details.proto", syntax="proto3")
    file.package = "google.rpc"
    pool = descriptor_pool.DescriptorPool()
    for used in (any_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR):
        pool.AddSerializedFile(used.serialized_pb)
        file.dependency.append(used.name)
    field = descriptor_pb2.FieldDescriptorProto
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=field.TYPE_INT32)
    status.field.add(name="message", number=2, type=field.TYPE_STRING)
    details = status.field.add(name="details", number=3, type=field.TYPE_MESSAGE)
    details.label, details.type_name = field.LABEL_REPEATED, ".google.protobuf.Any"
    delay = file.message_type.add(name="RetryInfo").field.add(name="retry_delay", number=1)
    delay.type, delay.type_name = field.TYPE_MESSAGE, ".google.protobuf.Duration"
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"google.rpc.{name}") for name in ("Status", "RetryInfo"))
    made, info = (message_factory.GetMessageClass(each) for each in found)
    return made, info


_Status, _RetryInfo = _described()
