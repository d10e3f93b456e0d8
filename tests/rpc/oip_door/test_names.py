"""Every name means something, is neutral, or refuses the request by itself: the lists are walked, and the
messages, so that one that is added fails here until it has a meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from helios_proto.inference import open_inference_pb2 as pb
from helios_server.rpc.oip import names

from tests.rpc.oip_door.wire import (
    as_raw,
    heard,
    infer,
    outputs_of,
    refusal,
    request,
    set_parameters,
    told,
    typed,
)
from tests.rpc.pods import EXITS, LAYERS, Served, serving

HOT = {"temperature": 20.0, "seed": 1, "max_tokens": 8}
"""Sampling in which nearly every token is likely, so that what narrows the choice shows."""
HALT = {"temperature": 1000.0, "seed": 15, "max_tokens": 40, "ignore_eos": False}
"""Uniform sampling that meets end-of-sequence long before the end."""
ALL = ("text_output", "finish_reason", "num_output_tokens", "confidence")

SAMPLING: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "exclude_input_in_output": ({}, [True]),
    "max_tokens": ({}, [5]),
    "min_tokens": ({"sampling_parameters": json.dumps({"stop_token_ids": [*range(320)]})}, [4]),
    "temperature": ({"seed": 1}, [20.0]),
    "top_k": (HOT, [1]),
    "top_p": (HOT, [0.001]),
    "min_p": (HOT, [1.0]),
    "repetition_penalty": ({}, [50.0]),
    "stop_token_ids": ({}, list(range(320))),
    "ignore_eos": (HALT, [True]),
    "end_id": (HALT, [-1]),
    "seed": (HOT, [2]),
}
"""Name -> what else the request holds, and a value that makes a difference."""


def given(name: str, elements: list[Any]) -> Any:
    return typed(name, names.KINDS[name].datatype, elements)


async def test_every_tensor_of_sampling_changes_the_answer(shared_pod: Served) -> None:
    """Typed or raw, in the same way; the answer comes as the request did."""
    for name, (others, elements) in SAMPLING.items():
        plain = await outputs_of(shared_pod, request(outputs=ALL, **others))
        typed_one = await infer(shared_pod, request(given(name, elements), outputs=ALL, **others))
        raw_one = await infer(shared_pod, as_raw(request(given(name, elements), outputs=ALL, **others)))
        assert told(typed_one) == told(raw_one) != plain, name
        assert (len(typed_one.raw_output_contents), len(raw_one.raw_output_contents)) == (0, len(ALL))


async def test_stop_words_change_the_answer(shared_pod: Served) -> None:
    without = {"exclude_input_in_output": True}
    [text] = (await outputs_of(shared_pod, request(**without)))["text_output"]
    words = given("stop_words", ["", text[3:4]])
    assert (await outputs_of(shared_pod, request(words, **without)))["text_output"] == [
        text[: text.index(text[3])]
    ]


async def test_what_asks_for_an_output_gets_it(shared_pod: Served) -> None:
    plain = await outputs_of(shared_pod, request())
    for name, outputs in names.RETURNS.items():
        asked = await outputs_of(shared_pod, request(given(name, [True])))
        assert list(asked) == ["text_output", *outputs]
        assert asked["text_output"] == plain["text_output"]
        assert all(asked[output] not in ([], [""]) for output in outputs)


async def test_every_name_is_in_a_table(shared_pod: Served) -> None:
    elsewhere = {"text_input", "sampling_parameters", "stream", "stop_words", "exit_depth", "cache_salt"}
    assert {*SAMPLING, *names.RETURNS, *elsewhere} == set(names.HEEDED)
    assert "cache_salt: has 257 characters" in await refusal(shared_pod, request(cache_salt="s" * 257))


async def test_every_output_is_told_by_its_name(shared_pod: Served) -> None:
    whole = await outputs_of(shared_pod, request(outputs=list(names.OUTPUTS)))
    assert list(whole) == list(names.OUTPUTS)
    lengths = {name: len(elements) for name, elements in whole.items()}
    assert lengths == {name: 8 if kind.many else 1 for name, kind in names.OUTPUTS.items()}
    assert whole["num_input_tokens"] == [(await shared_pod.generate()).usage.prompt_tokens]
    assert whole["cumulative_logprob"] == whole["cum_log_probs"]
    assert "no_such" in await refusal(shared_pod, request(outputs=["no_such"]))


async def test_a_depth_is_asked_for_and_told(tiny: Path) -> None:
    async with serving(tiny) as pod:
        deep = await outputs_of(pod, request(outputs=["text_output", "exit_depth"]))
        shallow = await outputs_of(pod, request(outputs=["text_output", "exit_depth"], exit_depth=EXITS[0]))
        assert (deep["exit_depth"], shallow["exit_depth"]) == ([LAYERS] * 8, [EXITS[0]] * 8)
        assert deep["text_output"] != shallow["text_output"]
        words = await refusal(pod, request(exit_depth=1))
        assert words.startswith("exit_depth: 1 is not a depth served here")


async def test_a_name_may_stand_in_three_places(shared_pod: Served) -> None:
    in_words = typed("sampling_parameters", "BYTES", ['{"max_tokens": "3"}'])
    ways = (
        request(given("max_tokens", [3])),
        request(typed("max_tokens", "INT64", [3], [1, 1])),
        request(max_tokens=3),
        request(max_tokens="3"),
        request(sampling_parameters='{"max_tokens": 3}', max_tokens=None),
        request(in_words, max_tokens=None),
    )
    for made in ways:
        made.outputs.add(name="num_output_tokens")
        assert await outputs_of(shared_pod, made) == {"num_output_tokens": [3]}


async def test_other_names_mean_the_same(shared_pod: Served) -> None:
    values = {"random_seed": [2], "min_length": [4], "stop": ["x"], "streaming": [False]}
    assert set(values) == set(names.OTHER_NAMES)
    for other, elements in values.items():
        known, more = names.OTHER_NAMES[other], {"temperature": 20.0, **_seed(other)}
        by_other = await outputs_of(shared_pod, request(given(other, elements), **more))
        assert by_other == await outputs_of(shared_pod, request(given(known, elements), **more))
        twice = request(given(known, elements), given(other, elements))
        assert await refusal(shared_pod, twice) == f"{other}: is given twice, also as {known}; Give it once"


def _seed(other: str) -> dict[str, int]:
    return {} if other == "random_seed" else {"seed": 7}


REFUSED: dict[str, Any] = {
    "allowed_token_ids": [1],
    "bad_words": ["x"],
    "beam_width": [2],
    "best_of": [2],
    "detokenize": [False],
    "early_stopping": [True],
    "embedding_bias_weights": [0.5],
    "embedding_bias_words": ["x"],
    "frequency_penalty": [0.5],
    "image": ["x"],
    "include_stop_str_in_output": [True],
    "length_penalty": [2.0],
    "logprobs": [3],
    "lora_name": ["mine"],
    "n": [2],
    "num_return_sequences": [2],
    "presence_penalty": [0.5],
    "prompt_logprobs": [1],
    "return_context_logits": [True],
    "return_generation_logits": [True],
    "return_perf_metrics": [True],
    "skip_special_tokens": [False],
    "spaces_between_special_tokens": [False],
    "truncate_prompt_tokens": [3],
    "use_beam_search": [True],
}
"""Asks for what is not done here."""


async def test_neutral_values_change_nothing_and_others_are_refused_by_name(shared_pod: Served) -> None:
    plain = await outputs_of(shared_pod, request())
    neutral = [
        given(name, value if isinstance(value, list) else [value])
        for name, each in names.NEUTRAL.items()
        for value in each.values[:1]
        if value != {}
    ]
    assert await outputs_of(shared_pod, request(*neutral)) == plain
    assert await outputs_of(shared_pod, request(given("pad_id", [7]), given("bad_words", [""]))) == plain
    nothing = request(sampling_parameters='{"logit_bias": {}, "prompt_logprobs": null, "n": 1}')
    assert await outputs_of(shared_pod, nothing) == plain
    assert set(REFUSED) | {"pad_id", "logit_bias"} == set(names.NEUTRAL)
    for name, elements in REFUSED.items():
        words = await refusal(shared_pod, request(given(name, elements)))
        assert words.startswith(f"{name}: ")
        assert "asks for something that this server does not do" in words
    biased = request(sampling_parameters='{"logit_bias": {"1": 5}}')
    assert (await refusal(shared_pod, biased)).startswith("logit_bias: ")


RESERVED: dict[str, tuple[Any, Any]] = {
    "binary_data_output": (True, 1),
    "priority": (0, 1),
    "sequence_id": (0, 42),
    "sequence_start": (False, True),
    "sequence_end": (False, True),
    "timeout": (0, 1000),
    "triton_final_response": (False, "x"),
}
"""Neutral and not."""


async def test_what_triton_reserves_is_neutral_or_refused(shared_pod: Served) -> None:
    assert set(RESERVED) == set(names.RESERVED)
    plain = await outputs_of(shared_pod, request())
    neutral = {name: value for name, (value, _) in RESERVED.items()}
    assert await outputs_of(shared_pod, request(triton_enable_empty_final_response=True, **neutral)) == plain
    for name, (_, value) in RESERVED.items():
        assert (await refusal(shared_pod, request(**{name: value}))).startswith(f"{name}: ")


async def test_every_field_of_a_request_means_something(shared_pod: Served) -> None:
    plain = request()
    answer = await infer(shared_pod, plain)
    assert (answer.model_name, answer.model_version, answer.id) == ("chat", "1", "")
    assert (await infer(shared_pod, request(id="7"))).id == "7"
    described = {
        "model_name": {"model_name": "other"},
        "model_version": {"model_version": "2"},
    }
    for field, changes in described.items():
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await infer(shared_pod, request(**changes))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert (raised.value.details() or "").startswith(f"{field}: ")
    fields = {field.name for field in pb.ModelInferRequest.DESCRIPTOR.fields}
    elsewhere = {"parameters", "inputs", "outputs", "raw_input_contents"}
    assert fields == {*described, "id", *elsewhere}
    for what in ("inputs", "outputs"):
        made = request(outputs=["text_output"])
        set_parameters(getattr(made, what)[0].parameters, shared_memory_region="mine", binary_data=True)
        words = await refusal(shared_pod, made)
        assert words.startswith(f"{what}.{getattr(made, what)[0].name}.shared_memory_region: ")


WRONG: dict[str, tuple[Any, ...]] = {
    "prompt: is no input here; Leave it out; there are allowed_": (typed("prompt", "BYTES", ["x"]),),
    "text_input: has 2 elements; Send a request for each": (typed("text_input", "BYTES", ["a", "b"]),),
    "text_input: has the shape [2, 1], a batch of 2; Send": (
        typed("text_input", "BYTES", ["a", "b"], [2, 1]),
    ),
    "text_input: has the shape [1, 1, 1]; Give [1]": (typed("text_input", "BYTES", ["a"], [1, 1, 1]),),
    "text_input: is no UTF-8": (typed("text_input", "BYTES", [b"\xff"]),),
    "text_input: is empty": (typed("text_input", "BYTES", [""]),),
    "text_input: is missing; Give the text": (),
    "text_input: is given twice": (typed("text_input", "BYTES", ["a"]), typed("text_input", "BYTES", ["a"])),
}
"""Words -> inputs, with no text beside them."""
WRONG_PARAMETERS: dict[str, dict[str, Any]] = {
    "heat: is not known here; Leave it out; known are": {"heat": 1.0},
    '"": is not known here; Leave it out; known are': {"": 1.0},
    '"": is not known here; Leave': {"sampling_parameters": '{"": 1}'},
    "stream: is true, and ModelInfer has one answer; Call ModelStreamInfer": {"stream": True},
    "top_k: is given twice; Give it once": {"sampling_parameters": '{"top_k": 1}', "top_k": 1},
    "sampling_parameters: is no JSON object": {"sampling_parameters": "[1]"},
    "sampling_parameters: is no string": {"sampling_parameters": 1},
    "sampling_parameters.text_input: is no sampling": {"sampling_parameters": '{"text_input": "x"}'},
    "sampling_parameters.priority: is no sampling": {"sampling_parameters": '{"priority": 0}'},
    "text_input: is a parameter; Send it as a tensor": {"text_input": "x"},
    "temperature: -1.0 is out of range": {"temperature": -1.0},
    "temperature: NaN is no number": {"temperature": float("nan")},
    'max_tokens: "many" is no whole number': {"max_tokens": "many"},
    "random_seed: 36893488147419103232 is out of range": {"random_seed": str(2**65)},
    "end_id: 7 ends no answer of this model; Leave it out, or give": {"end_id": 7},
    "exit_depth: -1 is no depth": {"exit_depth": -1},
    "max_tokens: 1000000 new tokens after a prompt": {"max_tokens": 10**6},
    "stop_token_ids: 999 is outside": {"stop_token_ids": "[999]"},
    "top_p: 0.0 is out of range": {"top_p": 0.0},
}


async def test_what_is_wrong_is_named_with_what_to_do(shared_pod: Served) -> None:
    for words, inputs in WRONG.items():
        assert words in await refusal(shared_pod, request(*inputs, text=None))
    for words, parameters in WRONG_PARAMETERS.items():
        assert words in await refusal(shared_pod, request(**parameters))
    wrong_kind = typed("max_tokens", "FP32", [1.0])
    assert "max_tokens: is of datatype FP32; Send INT32" in await refusal(shared_pod, request(wrong_kind))
    empty = request()
    empty.parameters["seed"].Clear()
    assert "seed: is a parameter without a value" in await refusal(shared_pod, empty)
    [failed] = await heard(shared_pod, request(stream=True, exclude_input_in_output=False))
    assert "exclude_input_in_output: is false" in failed.error_message


async def test_what_is_quoted_does_not_lose_the_status(shared_pod: Served) -> None:
    """Metadata has bounds: whoever gets more of it loses code and words."""
    for name in ("x" * 100_000, "\U0001f600" * 10_000):
        words = await refusal(shared_pod, request(typed(name, "BYTES", ["x"])))
        assert words.startswith(name[:10])
        assert "there are allowed_token_ids" in words
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await shared_pod.generate(model=name)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert "Ask for chat" in (raised.value.details() or "")
    halves = '{"\\ud800": 1}'
    assert "\\ud800: is not known" in await refusal(shared_pod, request(sampling_parameters=halves))
