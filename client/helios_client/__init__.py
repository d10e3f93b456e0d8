"""The Python client of HELIOS: `Client`, and `AsyncClient` with the same calls, over gRPC.

For applications, and for `helios generate`. It needs grpcio and protobuf alone: it must import nothing of the
server, the operator or the command. docs/python-client.md is its page.
"""

from helios_client.aio import AsyncClient, AsyncStream
from helios_client.answers import Answer, Chunk, ModelInfo, Span
from helios_client.connection import TLS
from helios_client.errors import (
    Cancelled,
    DeadlineExceeded,
    HeliosError,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from helios_client.requests import Message, Options, Prompt
from helios_client.sync import Client, Stream

__all__ = [
    "TLS",
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Chunk",
    "Client",
    "DeadlineExceeded",
    "HeliosError",
    "Internal",
    "InvalidArgument",
    "Message",
    "ModelInfo",
    "NotFound",
    "Options",
    "Prompt",
    "ResourceExhausted",
    "Span",
    "Stream",
    "Unauthenticated",
    "Unavailable",
]
