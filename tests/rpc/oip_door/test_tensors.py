"""Tensors: raw and typed contents say the same, and whatever is wrong with them is named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from helios_proto.inference import open_inference_pb2 as pb
from helios_server.errors import InvalidRequest
from helios_server.rpc.oip.tensors import add_output, read_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rpc.oip_door.wire import as_raw, typed
from tests.sizes import examples

ELEMENTS: dict[str, Any] = {
    "BYTES": st.binary(max_size=20),
    "BOOL": st.booleans(),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
}


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    datatype = draw(st.sampled_from(sorted(ELEMENTS)))
    elements = draw(st.lists(ELEMENTS[datatype], min_size=1, max_size=5))
    return typed(draw(st.text(max_size=5)), datatype, elements)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda each: each.name))
def test_raw_and_typed_contents_say_the_same(inputs: list[Any]) -> None:
    request = pb.ModelInferRequest(inputs=inputs)
    read = [(each.name, list(each.elements)) for each in read_inputs(request)]
    assert read == [(each.name, list(each.elements)) for each in read_inputs(as_raw(request))]
    assert read == [(each.name, [*each.contents.ListFields()[0][1]]) for each in inputs]


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(["BYTES", "BOOL", "INT8", "UINT16", "FP16", "FP64", "BF16", ""]),
    st.lists(st.integers(-1, 4), max_size=3),
    st.binary(max_size=24),
)
def test_any_bytes_are_elements_or_refused_by_name(datatype: str, shape: list[int], content: bytes) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    found: Any
    try:
        [found] = read_inputs(pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[content]))
    except InvalidRequest as error:
        found = error
    named = isinstance(found, InvalidRequest) and found.field == "x"
    assert named or len(found.elements) == math.prod(shape)


def raw(content: bytes, datatype: str = "BYTES", shape: tuple[int, ...] = (1,), **more: Any) -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape, **more)
    return pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[content])


def elsewhere() -> Any:
    tensor = typed("x", "INT32", [1])
    tensor.datatype = "FP32"
    return pb.ModelInferRequest(inputs=[tensor])


WRONG = {
    "x: ends within element 0 of its raw contents; Put the length": raw(b"hello"),
    "x: ends within element 1": raw(b"\1\0\0\0a\1"),
    "x: has 2 elements, its shape [1] has 1": raw(b"\0\0\0\0" * 2),
    "x: has 0 elements, its shape [1] has 1": raw(b""),
    "x: has 3 bytes of raw contents, its shape [1] of INT32 takes 4": raw(b"abc", "INT32"),
    "x: is of datatype BF16; Send one of BOOL": raw(b"ab", "BF16"),
    "x: is of datatype nothing": raw(b"ab", ""),
    "x: has the shape [-1]; Give the number": raw(b"\1", "BOOL", (-1,)),
    "x: has the shape []; Give the number": raw(b"\1", "BOOL", ()),
    "x: has `contents` beside raw_input_contents": raw(b"", contents=pb.InferTensorContents()),
    "raw_input_contents: holds 1 contents for 0 inputs": pb.ModelInferRequest(raw_input_contents=[b""]),
    "x: FP32 is in int_contents; Put it into fp32_contents": elsewhere(),
    "x: FP16 has no field in `contents`; Send FP32": pb.ModelInferRequest(
        inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP16", shape=[1])]
    ),
    "x: is given twice": pb.ModelInferRequest(inputs=[typed("x", "BOOL", [True])] * 2),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_named(words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        list(read_inputs(WRONG[words]))
    assert words in str(raised.value)


def test_shapes_of_many_sides_are_whole_rows() -> None:
    [read] = read_inputs(pb.ModelInferRequest(inputs=[typed("x", "INT64", range(6), [1, 2, 3])]))
    assert (read.shape, list(read.elements)) == ((1, 2, 3), [0, 1, 2, 3, 4, 5])


def test_outputs_are_told_in_either_form() -> None:
    answer = pb.ModelInferResponse()
    add_output(answer, "text", "BYTES", [b"a", b"bc"], raw=True)
    add_output(answer, "count", "UINT32", [7], raw=True)
    assert list(answer.raw_output_contents) == [b"\1\0\0\0a\2\0\0\0bc", b"\7\0\0\0"]
    assert [list(output.shape) for output in answer.outputs] == [[2], [1]]
    assert not answer.outputs[0].HasField("contents")
    add_output(answer, "count", "UINT32", [7], raw=False)
    assert list(answer.outputs[2].contents.uint_contents) == [7]
