"""Run by `triton.py` as a script, beside tritonclient: a line of JSON says what to do, one tells what came.

Nothing of this repository can be imported here. Inputs are [name, datatype, shape, elements].
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import traceback
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def prepared(request: dict[str, Any]) -> dict[str, Any]:
    """Arguments of infer and its like."""
    inputs = []
    for name, datatype, shape, elements in request.pop("inputs"):
        tensor = triton.InferInput(name, shape, datatype)
        values = [each.encode() for each in elements] if datatype == "BYTES" else elements
        tensor.set_data_from_numpy(np.array(values, dtype=triton_to_np_dtype(datatype)).reshape(shape))
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput(name) for name in request.pop("outputs", [])] or None
    return {"model_name": "chat", "inputs": inputs, "outputs": outputs, **request}


def told(result: Any, error: Any = None) -> dict[str, Any]:
    if error is not None:
        return {"error": error.message(), "status": error.status()}
    response = result.get_response(as_json=True)
    arrays = {each["name"]: result.as_numpy(each["name"]) for each in response.get("outputs", [])}
    return {
        "id": response.get("id", ""),
        "model": [response["model_name"], response["model_version"]],
        "parameters": {
            name: next(iter(value.values())) for name, value in response.get("parameters", {}).items()
        },
        "outputs": {
            name: [each.decode() if isinstance(each, bytes) else each for each in array.tolist()]
            for name, array in arrays.items()
        },
        "raw": len(result.get_response().raw_output_contents),
    }


def describe(url: str) -> dict[str, Any]:
    with triton.InferenceServerClient(url) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": [client.is_model_ready("chat"), client.is_model_ready("chat", "1")],
            "server": client.get_server_metadata(as_json=True),
            "model": client.get_model_metadata("chat", as_json=True),
            "config": client.get_model_config("chat", as_json=True)["config"],
            "statistics": client.get_inference_statistics(as_json=True)["model_stats"],
            "index": client.get_model_repository_index(as_json=True),
        }


def published(url: str) -> dict[str, Any]:
    """Message -> field -> number, type and whether it repeats, as this client has them; and enums."""
    found: dict[str, Any] = {}

    def walk(message: Any) -> None:
        found[message.full_name] = {
            each.name: [each.number, each.type, each.is_repeated] for each in message.fields
        }
        for nested in message.nested_types:
            walk(nested)

    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            walk(message)
        for enum in file.enum_types_by_name.values():
            found[enum.full_name] = {value.name: value.number for value in enum.values}
    for each in service_pb2.DESCRIPTOR.services_by_name.values():
        found[each.full_name] = {
            call.name: [call.input_type.full_name, call.output_type.full_name] for call in each.methods
        }
    return found


def method(url: str, name: str, **given: Any) -> Any:
    """Any call of the client that returns a message or a flag."""
    with triton.InferenceServerClient(url) as client:
        try:
            return getattr(client, name)(**given)
        except InferenceServerException as error:
            return told(None, error)


def infer(url: str, **request: Any) -> dict[str, Any]:
    with triton.InferenceServerClient(url) as client:
        try:
            return told(client.infer(**prepared(request)))
        except InferenceServerException as error:
            return told(None, error)


def stream(url: str, requests: list[dict[str, Any]], cancel_after: int = 0) -> list[dict[str, Any]]:
    """What the callback heard, in order. cancel_after: so many answers; 0: all requests are waited for."""
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    told_of = []
    with triton.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: heard.put(told(result, error)))
        for request in requests:
            empty = request.pop("empty", False)
            client.async_stream_infer(enable_empty_final_response=empty, **prepared(request))
        while cancel_after and len(told_of) < cancel_after:
            told_of.append(heard.get(timeout=60))
        client.stop_stream(cancel_requests=bool(cancel_after))
    while not heard.empty():
        told_of.append(heard.get())
    return told_of


def aio(url: str, whole: dict[str, Any], streamed: list[dict[str, Any]]) -> list[Any]:
    """The same with asyncio: one answer, then a stream's."""

    async def run() -> list[Any]:
        async def given() -> Any:
            for request in streamed:
                yield prepared(request)

        async with triton_aio.InferenceServerClient(url) as client:
            one = told(await client.infer(**prepared(whole)))
            answers = [told(result, error) async for result, error in client.stream_infer(given())]
            return [one, answers]

    return asyncio.run(run())


def aio_cancel(url: str, request: dict[str, Any], after: int) -> int:
    """Leaves a stream after so many answers."""

    async def run() -> int:
        async def given() -> Any:
            yield prepared(request)
            await asyncio.sleep(600)

        async with triton_aio.InferenceServerClient(url) as client:
            answers = client.stream_infer(given())
            for _ in range(after):
                await anext(answers)
            answers.cancel()
        return after

    return asyncio.run(run())


for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = {"answer": globals()[asked.pop("what")](**asked)}
    except Exception:
        answer = {"trace": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
