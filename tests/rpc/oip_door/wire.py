"""Requests and calls of the protocol in its own messages, typed or raw, for what tritonclient would not
send."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from helios_proto.inference import open_inference_pb2 as pb
from helios_proto.inference import open_inference_pb2_grpc

from tests.rpc.pods import PROMPT, Served

CHOICES = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True}
"""As parameters."""


def typed(name: str, datatype: str, elements: Sequence[Any], shape: Sequence[int] | None = None) -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape or [len(elements)]
    )
    field = {"BYTES": "bytes", "BOOL": "bool", "INT32": "int", "INT64": "int64", "UINT32": "uint"}
    field |= {"UINT64": "uint64", "FP32": "fp32", "FP64": "fp64"}
    given = [each.encode() if isinstance(each, str) else each for each in elements]
    getattr(tensor.contents, f"{field[datatype]}_contents").extend(given)
    return tensor


def set_parameters(to: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(to[name], CHOICES[type(value)], value)


def request(*inputs: Any, text: str | None = PROMPT, outputs: Sequence[str] = (), **parameters: Any) -> Any:
    """Typed; greedy and 8 tokens unless parameters say otherwise; None leaves one out."""
    own = {name: parameters.pop(name) for name in ("id", "model_name", "model_version") if name in parameters}
    made = pb.ModelInferRequest(**own, inputs=inputs)
    if text is not None:
        made.inputs.append(typed("text_input", "BYTES", [text]))
    for name in outputs:
        made.outputs.add(name=name)
    given = {name: value for name, value in (GREEDY | parameters).items() if value is not None}
    taken = {each.name for each in inputs}
    set_parameters(made.parameters, **{name: value for name, value in given.items() if name not in taken})
    return made


def as_raw(made: pb.ModelInferRequest) -> pb.ModelInferRequest:
    """The same request with raw contents."""
    copy = pb.ModelInferRequest()
    copy.CopyFrom(made)
    dtypes = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "UINT64": "<u8", "FP32": "<f4", "FP64": "<f8"}
    for tensor in copy.inputs:
        [(_, elements)] = tensor.contents.ListFields()
        if tensor.datatype == "BYTES":
            content = b"".join(struct.pack("<I", len(each)) + each for each in elements)
        else:
            content = np.array(list(elements), dtypes[tensor.datatype]).tobytes()
        copy.raw_input_contents.append(content)
        tensor.ClearField("contents")
    return copy


def told(answer: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """Outputs by name, in whichever form they came."""
    found: dict[str, list[Any]] = {}
    dtypes = {"UINT32": "<u4", "INT32": "<i4", "FP32": "<f4"}
    for index, output in enumerate(answer.outputs):
        if not answer.raw_output_contents:
            elements = [each for _, field in output.contents.ListFields() for each in field]
        elif output.datatype == "BYTES":
            content = answer.raw_output_contents[index]
            elements = []
            while content:
                end = 4 + struct.unpack("<I", content[:4])[0]
                elements.append(content[4:end])
                content = content[end:]
        else:
            elements = np.frombuffer(answer.raw_output_contents[index], dtypes[output.datatype]).tolist()
        assert list(output.shape) == [len(elements)]
        found[output.name] = [each.decode() if isinstance(each, bytes) else each for each in elements]
    return found


@asynccontextmanager
async def speaking(pod: Served) -> AsyncIterator[Any]:
    """A stub of the protocol's service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


async def infer(pod: Served, made: pb.ModelInferRequest) -> pb.ModelInferResponse:
    async with speaking(pod) as stub:
        answer: pb.ModelInferResponse = await stub.ModelInfer(made)
        return answer


async def outputs_of(pod: Served, made: pb.ModelInferRequest) -> dict[str, list[Any]]:
    return told(await infer(pod, made))


async def refusal(pod: Served, made: pb.ModelInferRequest) -> str:
    """The words of an INVALID_ARGUMENT."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await infer(pod, made)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, raised.value.details()
    return raised.value.details() or ""


async def heard(pod: Served, *requests: pb.ModelInferRequest) -> list[pb.ModelStreamInferResponse]:
    """All answers of one stream."""
    async with speaking(pod) as stub:
        return [answer async for answer in stub.ModelStreamInfer(iter(requests))]
