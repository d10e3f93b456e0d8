"""tritonclient, unchanged: whole answers, streams, many requests at once, cancels, errors."""

from __future__ import annotations

import asyncio
from typing import Any

from helios_proto.inference import open_inference_pb2 as pb

from tests.rpc.oip_door.triton import Triton
from tests.rpc.pods import PROMPT, Served, eventually

LONG = 100


def asked(text: str = PROMPT, tokens: int = 4, **more: Any) -> dict[str, Any]:
    """Greedy, end-of-sequence ignored; as the vLLM backend's own example asks."""
    sampling = f'{{"max_tokens": "{tokens}", "temperature": "0", "ignore_eos": true}}'
    inputs = [["text_input", "BYTES", [1], [text]], ["sampling_parameters", "BYTES", [1], [sampling]]]
    return {"inputs": [*inputs, *more.pop("and_inputs", [])], **more}


def streamed(tokens: int = 4, text: str = PROMPT, **more: Any) -> dict[str, Any]:
    also = [["stream", "BOOL", [1], [True]], *more.pop("and_inputs", [])]
    return asked(text, tokens, and_inputs=also, **more)


async def test_it_learns_what_is_served(pod: Served, triton: Triton) -> None:
    await pod.generate()
    found = await triton.ask("describe", pod)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, [True, True])
    assert found["server"]["name"] == "helios"
    assert found["model"]["versions"] == ["1"]
    first = found["model"]["inputs"][0]
    assert first == {"name": "text_input", "datatype": "BYTES", "shape": ["1"]}
    config = found["config"]
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert config.get("max_batch_size", 0) == 0
    assert [each["name"] for each in config["input"]] == [each["name"] for each in found["model"]["inputs"]]
    assert [each["name"] for each in config["input"] if not each.get("optional")] == ["text_input"]
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert config["parameters"]["total_layers"]["string_value"] == "6"
    assert config["parameters"]["candidate"]["string_value"] == "tiny"
    [stats] = found["statistics"]
    assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == ("1", "1")
    assert int(stats["inference_stats"]["compute_infer"]["ns"]) > 0
    assert int(stats["last_inference"]) > 1_700_000_000_000
    assert found["index"]["models"] == [{"name": "chat", "version": "1", "state": "READY"}]


async def test_an_answer_is_what_helios_v1_says(pod: Served, triton: Triton) -> None:
    native = await pod.generate(max_tokens=4)
    outputs = [
        "text_output",
        "finish_reason",
        "num_input_tokens",
        "num_output_tokens",
        "exit_depth",
        "confidence",
    ]
    answer = await triton.ask("infer", pod, **asked(request_id="7", outputs=outputs))
    assert (answer["id"], answer["model"], answer["raw"]) == ("7", ["chat", "1"], len(outputs))
    told = answer["outputs"]
    assert told["text_output"] == [PROMPT + native.text]
    assert told["finish_reason"] == ["length"]
    assert told["num_input_tokens"] == [native.usage.prompt_tokens]
    assert told["num_output_tokens"] == [4]
    assert told["exit_depth"] == [6] * 4
    assert len(told["confidence"]) == 4


async def test_the_text_can_be_left_out(pod: Served, triton: Triton) -> None:
    native = await pod.generate(max_tokens=4)
    without = [["exclude_input_in_output", "BOOL", [1], [True]]]
    answer = await triton.ask("infer", pod, **asked(and_inputs=without))
    assert answer["outputs"] == {"text_output": [native.text]}


async def test_tensorrt_llms_names_do_the_same(pod: Served, triton: Triton) -> None:
    """As its own client sends them, with a dimension for the batch."""
    native = await pod.generate(max_tokens=5)
    inputs: list[list[Any]] = [
        ["text_input", "BYTES", [1, 1], [PROMPT]],
        ["max_tokens", "INT32", [1, 1], [5]],
        ["bad_words", "BYTES", [1, 1], [""]],
        ["stop_words", "BYTES", [1, 1], [""]],
        ["end_id", "INT32", [1, 1], [-1]],
        ["pad_id", "INT32", [1, 1], [2]],
        ["top_k", "INT32", [1, 1], [1]],
        ["top_p", "FP32", [1, 1], [0.0]],
        ["temperature", "FP32", [1, 1], [1.0]],
        ["length_penalty", "FP32", [1, 1], [1.0]],
        ["repetition_penalty", "FP32", [1, 1], [1.0]],
        ["random_seed", "UINT64", [1, 1], [1]],
        ["beam_width", "INT32", [1, 1], [1]],
        ["streaming", "BOOL", [1, 1], [False]],
        ["exclude_input_in_output", "BOOL", [1, 1], [True]],
        ["return_log_probs", "BOOL", [1, 1], [True]],
    ]
    told = (await triton.ask("infer", pod, inputs=inputs))["outputs"]
    assert told["text_output"] == [native.text]
    assert len(told["output_log_probs"]) == 5
    assert abs(sum(told["output_log_probs"]) - told["cum_log_probs"][0]) < 1e-4


async def test_many_requests_share_a_stream(pod: Served, triton: Triton) -> None:
    """A long one first: the short ones do not wait for it."""
    texts = {"a": PROMPT, "b": "Another", "c": "A third one"}
    native = {name: await pod.generate(text, max_tokens=4) for name, text in texts.items()}
    whole = await pod.generate("Long", max_tokens=LONG)
    requests = [streamed(LONG, "Long", request_id="long")]
    requests += [streamed(4, text, request_id=name) for name, text in texts.items()]
    heard = await triton.ask("stream", pod, requests=requests)
    answers: dict[str, list[dict[str, Any]]] = {}
    for answer in heard:
        answers.setdefault(answer["id"], []).append(answer)
    for name, complete in {**native, "long": whole}.items():
        assert "".join(each["outputs"]["text_output"][0] for each in answers[name]) == complete.text
        finals = [each["parameters"]["triton_final_response"] for each in answers[name]]
        assert finals == [False] * (len(finals) - 1) + [True]
    assert heard[-1]["id"] == "long"


async def test_an_empty_answer_comes_last_where_it_is_asked_for(pod: Served, triton: Triton) -> None:
    requests = [streamed(3, empty=True, request_id="s"), asked(empty=True, request_id="w")]
    heard = await triton.ask("stream", pod, requests=requests)
    for name in ("s", "w"):
        *before, last = [each for each in heard if each["id"] == name]
        assert all(each["outputs"] and not each["parameters"]["triton_final_response"] for each in before)
        assert (last["outputs"], last["parameters"]) == ({}, {"triton_final_response": True})


async def test_a_request_that_fails_leaves_its_stream(pod: Served, triton: Triton) -> None:
    wrong = streamed(request_id="wrong", and_inputs=[["top_k", "FP32", [1], [1.0]]])
    heard = await triton.ask("stream", pod, requests=[wrong, streamed(4, request_id="right")])
    [error] = [each["error"] for each in heard if "error" in each]
    assert error == "INVALID_ARGUMENT: top_k: is of datatype FP32; Send INT32 (request wrong)"
    assert heard[-1]["parameters"]["triton_final_response"] is True


async def test_with_asyncio(pod: Served, triton: Triton) -> None:
    native = await pod.generate(max_tokens=4)
    whole, answers = await triton.ask("aio", pod, whole=asked(), streamed=[streamed(4, request_id="1")])
    assert whole["outputs"]["text_output"] == [PROMPT + native.text]
    assert "".join(each["outputs"]["text_output"][0] for each in answers) == native.text


async def test_a_stream_that_is_cancelled_frees_its_rows(pod: Served, triton: Triton) -> None:
    requests = [streamed(3000, request_id=str(index)) for index in range(4)]
    await triton.ask("stream", pod, requests=requests, cancel_after=8)
    await eventually(lambda: _free(pod))
    await triton.ask("aio_cancel", pod, request=streamed(3000), after=3)
    await eventually(lambda: _free(pod))
    late = await triton.ask("infer", pod, **asked(tokens=3000, client_timeout=0.2))
    assert late["status"] == "StatusCode.DEADLINE_EXCEEDED"
    await eventually(lambda: _free(pod))
    _, metrics = await pod.page("/metrics")
    assert 'finished_reason="length"' not in metrics  # none ran to its end


async def _free(pod: Served) -> bool:
    """No row, no page, and no task of a stream."""
    load = await pod.load()
    left = [task for task in asyncio.all_tasks() if "Many." in repr(task.get_coro())]
    return (load.running, load.waiting, load.kv_used_tokens, left) == (0, 0, 0, [])


SOME_FIELDS = {"ModelConfig", "ModelInput", "ModelOutput", "InferStatistics", "ModelStatistics"}
"""Messages of answers, of which only what is filled in stands in our file."""


async def test_messages_and_numbers_are_the_published_ones(pod: Served, triton: Triton) -> None:
    published = await triton.ask("published", pod)

    def check(message: Any) -> None:
        ours = {each.name: [each.number, each.type, each.is_repeated] for each in message.fields}
        theirs = published[message.full_name]
        assert ours.items() <= theirs.items() if message.name in SOME_FIELDS else ours == theirs, message.name
        for nested in message.nested_types:
            check(nested)

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        check(message)
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        assert {value.name: value.number for value in enum.values} == published[enum.full_name]
    [service] = pb.DESCRIPTOR.services_by_name.values()
    calls = published[service.full_name]
    for call in service.methods:
        assert calls[call.name] == [call.input_type.full_name, call.output_type.full_name]


async def test_errors_are_statuses(pod: Served, triton: Triton) -> None:
    unknown = await triton.ask("infer", pod, **asked(), model_name="other")
    assert unknown["status"] == "StatusCode.NOT_FOUND"
    other = await triton.ask("method", pod, name="get_system_shared_memory_status")
    assert other["status"] == "StatusCode.UNIMPLEMENTED"
    assert other["error"].startswith("SystemSharedMemoryStatus: is not served here; Leave it out")
    assert unknown["error"] == "model_name: other is not served here; Ask for chat, or leave it empty"
