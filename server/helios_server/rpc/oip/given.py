"""What a request gives, by name, wherever it stands: tensors, sampling_parameters, parameters.

Called by `requests`. A name may come from each of the three places, but once. Every error names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from helios_proto.inference import open_inference_pb2 as pb

from helios_server.errors import InvalidRequest
from helios_server.models.json_file import parse_object
from helios_server.rpc.fields import Fields, Neutral
from helios_server.rpc.oip import names
from helios_server.rpc.oip.tensors import BOOL, BYTES, REAL, WHOLE, Tensor, read_inputs

_ONE_EACH = "Send a request for each: they share the batch"
_NO_SHARED_MEMORY = dict.fromkeys(
    ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"), Neutral()
)
_OF_TENSORS: Mapping[str, Neutral] = _NO_SHARED_MEMORY | {
    "binary_data": Neutral(any_of=(bool,)),
    "binary_data_size": Neutral(any_of=(int,)),
    "classification": Neutral((0,)),
}
"""Parameters of one tensor; the second and third say how it would lie in an HTTP body."""


class Given:
    """values: by the names of `names.HEEDED` and its neighbours; words: those to the names that were used."""

    def __init__(self, request: pb.ModelInferRequest) -> None:
        self.values: dict[str, Any] = {}
        self.words: dict[str, str] = {}
        for name, value in _of_tensors(request):
            self._take(name, value)
        for name, value in _of_parameters(request.parameters):
            if name == names.TEXT:
                raise InvalidRequest(name, "is a parameter", "Send it as a tensor of BYTES")
            self._take(name, _converted(name, value))
        for name, value in _of_json(self.values.get(names.JSON)):
            if name in (names.TEXT, names.JSON, *names.RESERVED, names.EMPTY_FINAL):
                raise InvalidRequest(f"{names.JSON}.{name}", "is no sampling parameter", "Leave it out")
            self._take(name, _converted(name, value))

    def _take(self, name: str, value: Any) -> None:
        known_as = names.OTHER_NAMES.get(name, name)
        if known_as in self.words:
            earlier = self.words[known_as]
            as_what = "" if earlier == name else f", also as {earlier}"
            raise InvalidRequest(name, f"is given twice{as_what}", "Give it once")
        self.values[known_as], self.words[known_as] = value, name


def outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    """Those that it names. Raises InvalidRequest."""
    for output in request.outputs:
        if output.name not in names.OUTPUTS:
            known = ", ".join(names.OUTPUTS)
            raise InvalidRequest(f"outputs.{output.name}", "is not known here", f"There are {known}")
        _check_parameters(f"outputs.{output.name}", output.parameters)
    return tuple(dict.fromkeys(output.name for output in request.outputs))


# -- the three places


def _of_tensors(request: pb.ModelInferRequest) -> Iterator[tuple[str, Any]]:
    for given in request.inputs:
        if given.name not in names.KINDS:
            known = ", ".join(sorted(names.KINDS))
            fix = f"Leave it out; there are {known}"
            raise InvalidRequest(given.name or "inputs", "is no input here", fix)
        _check_parameters(f"inputs.{given.name}", given.parameters)
    for tensor in read_inputs(request):
        yield tensor.name, _value(tensor, names.KINDS[tensor.name])


def _of_parameters(parameters: Mapping[str, pb.InferParameter]) -> Iterator[tuple[str, Any]]:
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(name or "parameters", "is a parameter without a value", "Give it one")
        yield name, getattr(parameter, choice)


def _of_json(text: Any) -> Iterator[tuple[str, Any]]:
    if text is None:
        return
    if not isinstance(text, str):
        raise InvalidRequest(names.JSON, "is no string", "Send an object of JSON, in a string")
    try:
        for name, value in parse_object(text.encode(), unique=True).items():
            yield _printable(name), value
    except ValueError as error:
        raise InvalidRequest(names.JSON, f"is no JSON object ({_printable(error)})", "Send one") from None


def _printable(text: object) -> str:
    """JSON can spell half of a character, which no message can carry."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _check_parameters(path: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    Fields(dict(_of_parameters(parameters)), f"{path}.").admit(frozenset(), _OF_TENSORS)


# -- values


def _value(tensor: Tensor, kind: names.Kind) -> Any:
    """One element, or a list of them."""
    legal = {BYTES: {BYTES}, BOOL: {BOOL}}.get(kind.datatype, WHOLE if kind.datatype in WHOLE else REAL)
    if tensor.datatype not in legal:
        raise InvalidRequest(tensor.name, f"is of datatype {tensor.datatype}", f"Send {kind.datatype}")
    if len(tensor.shape) > 1 and tensor.shape[0] > 1:
        problem = f"has the shape {list(tensor.shape)}, a batch of {tensor.shape[0]}"
        raise InvalidRequest(tensor.name, problem, _ONE_EACH)
    if len(tensor.shape) > 2:
        problem = f"has the shape {list(tensor.shape)}"
        raise InvalidRequest(tensor.name, problem, f"Give [{len(tensor.elements)}]")
    elements = _texts(tensor) if kind.datatype == BYTES else tensor.elements
    if kind.many:
        return list(elements)
    if len(elements) != 1:
        fix = _ONE_EACH if elements else "Give one, in the shape [1], or leave it out"
        raise InvalidRequest(tensor.name, f"has {len(elements)} elements", fix)
    return elements[0]


def _texts(tensor: Tensor) -> Sequence[str]:
    try:
        return [element.decode() for element in tensor.elements]
    except UnicodeDecodeError as error:
        raise InvalidRequest(tensor.name, f"is no UTF-8 ({error.reason})", "Send UTF-8") from None


def _converted(name: str, value: Any) -> Any:
    """A number or a flag may stand in a string, as these clients send them."""
    kind = names.KINDS.get(name)
    if not isinstance(value, str) or kind is None or kind.datatype == BYTES:
        return value
    try:
        return json.loads({"True": "true", "False": "false"}.get(value, value))
    except (ValueError, RecursionError):
        return value
