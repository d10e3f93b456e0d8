"""Tensors as the protocol carries them, raw or typed, and their elements.

Called by `requests` and `answers`. Every error names the tensor, what was found and what is expected. It must
not know what a tensor is for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from helios_proto.inference import open_inference_pb2 as pb

from helios_server.errors import InvalidRequest

BYTES, BOOL = "BYTES", "BOOL"
_INTS, _UINTS = "int_contents", "uint_contents"
_KINDS: Mapping[str, tuple[str, str]] = {
    BOOL: ("?", "bool_contents"),
    "INT8": ("<i1", _INTS),
    "INT16": ("<i2", _INTS),
    "INT32": ("<i4", _INTS),
    "INT64": ("<i8", "int64_contents"),
    "UINT8": ("<u1", _UINTS),
    "UINT16": ("<u2", _UINTS),
    "UINT32": ("<u4", _UINTS),
    "UINT64": ("<u8", "uint64_contents"),
    "FP16": ("<f2", ""),
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
    BYTES: ("", "bytes_contents"),
}
"""Datatype -> its elements in raw contents, as numpy says it, and its field in typed ones ("": none)."""
_LENGTH = struct.Struct("<I")
"""Before each element of BYTES in raw contents."""
WHOLE = frozenset(name for name in _KINDS if "INT" in name)
REAL = frozenset(name for name in _KINDS if name.startswith("FP")) | WHOLE
"""A whole number will do where any number does."""


@dataclass(frozen=True)
class Tensor:
    """What a request gave under one name. elements: bool, int, float or bytes, row by row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Sequence[Any]


def read_inputs(request: pb.ModelInferRequest) -> Iterator[Tensor]:
    """The inputs of a request. Raises InvalidRequest."""
    raw, seen = request.raw_input_contents, set()
    if raw and len(raw) != len(request.inputs):
        problem = f"holds {len(raw)} contents for {len(request.inputs)} inputs"
        fix = "Send the contents of every input there, in the inputs' order, or all in `contents`"
        raise InvalidRequest("raw_input_contents", problem, fix)
    for index, given in enumerate(request.inputs):
        if given.name in seen:
            raise InvalidRequest(given.name, "is given twice", "Give it once")
        seen.add(given.name)
        elements = _from_raw(given, raw[index]) if raw else _from_typed(given)
        yield Tensor(given.name, given.datatype, tuple(given.shape), elements)


def _kind(given: pb.ModelInferRequest.InferInputTensor) -> tuple[str, str]:
    if given.datatype not in _KINDS:
        problem = f"is of datatype {given.datatype or 'nothing'}"
        raise InvalidRequest(given.name, problem, f"Send one of {', '.join(_KINDS)}")
    return _KINDS[given.datatype]


def _size(given: pb.ModelInferRequest.InferInputTensor) -> int:
    """Elements, as the shape has it."""
    if not given.shape or any(side < 0 for side in given.shape):
        problem = f"has the shape {list(given.shape)}"
        raise InvalidRequest(given.name, problem, "Give the number of its elements, for example [1]")
    return math.prod(given.shape)


def _from_raw(given: pb.ModelInferRequest.InferInputTensor, content: bytes) -> Sequence[Any]:
    dtype, _ = _kind(given)
    if given.HasField("contents"):
        problem = "has `contents` beside raw_input_contents"
        raise InvalidRequest(given.name, problem, "Send one of the two, for all inputs")
    if not dtype:
        return _checked(given, _strings(given.name, content))
    size, element = _size(given), np.dtype(dtype)
    each = element.itemsize
    if len(content) != size * each:
        problem = f"has {len(content)} bytes of raw contents, its shape {list(given.shape)} of "
        problem += f"{given.datatype} takes {size * each}"
        raise InvalidRequest(given.name, problem, "Make its shape and its contents agree")
    elements: list[Any] = np.frombuffer(content, element).tolist()
    return elements


def _strings(name: str, content: bytes) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(content):
        start = position + _LENGTH.size
        length = _LENGTH.unpack_from(content, position)[0] if start <= len(content) else 0
        position = start + length
        if position > len(content):
            problem = f"ends within element {len(elements)} of its raw contents"
            fix = "Put the length of each element before it, in 4 bytes, little-endian"
            raise InvalidRequest(name, problem, fix)
        elements.append(content[start:position])
    return elements


def _from_typed(given: pb.ModelInferRequest.InferInputTensor) -> Sequence[Any]:
    _, field = _kind(given)
    if not field:
        fix = "Send FP32, or raw_input_contents"
        raise InvalidRequest(given.name, f"{given.datatype} has no field in `contents`", fix)
    for other, _ in given.contents.ListFields():
        if other.name != field:
            problem = f"{given.datatype} is in {other.name}"
            raise InvalidRequest(given.name, problem, f"Put it into {field}")
    return _checked(given, getattr(given.contents, field))


def _checked(given: pb.ModelInferRequest.InferInputTensor, elements: Sequence[Any]) -> Sequence[Any]:
    size = _size(given)
    if len(elements) != size:
        problem = f"has {len(elements)} elements, its shape {list(given.shape)} has {size}"
        raise InvalidRequest(given.name, problem, "Make its shape and its contents agree")
    return elements


def add_output(
    response: pb.ModelInferResponse, name: str, datatype: str, elements: Sequence[Any], raw: bool
) -> None:
    """One dimension; elements of BYTES are bytes."""
    dtype, field = _KINDS[datatype]
    output = response.outputs.add(name=name, datatype=datatype, shape=[len(elements)])
    if not raw:
        getattr(output.contents, field).extend(elements)
    elif dtype:
        response.raw_output_contents.append(np.array(elements, dtype).tobytes())
    else:
        framed = (_LENGTH.pack(len(each)) + each for each in elements)
        response.raw_output_contents.append(b"".join(framed))
