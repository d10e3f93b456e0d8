"""OpenAI's own SDK, unchanged, against a real pod: what it reads is what the engine made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helios_proto.v1 import control_pb2
from helios_proto.v1 import generation_pb2 as pb

from tests.rpc.openai_door.clients import SAY, sdk, url
from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, eventually, serving

GREEDY: dict[str, Any] = {"model": "chat", "temperature": 0, "max_tokens": 8}
LONG: dict[str, Any] = GREEDY | {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}


@pytest.fixture
async def client(pod: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(pod) as client:
        yield client


async def test_a_text_is_what_grpc_answers(pod: Served, client: openai.AsyncOpenAI) -> None:
    native = await pod.generate()
    answer = await client.completions.create(prompt=PROMPT, extra_body={"ignore_eos": True}, **GREEDY)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (native.text, "length")
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == native.usage.prompt_tokens
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (8, answer.usage.prompt_tokens + 8)


async def test_ids_are_what_grpc_answers(pod: Served, client: openai.AsyncOpenAI) -> None:
    native = await pod.generate(tokenized=pb.TokenizedInput(input_ids=[70, 71, 72]))
    asked = GREEDY | {"extra_body": {"ignore_eos": True}}
    for prompt in ([70, 71, 72], [[70, 71, 72]]):
        assert (await client.completions.create(prompt=prompt, **asked)).choices[0].text == native.text


async def test_a_chat_is_its_template_continued(pod: Served, client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    native = await pod.generate("<|user|>Be brief.<|user|>Who?")
    answer = await client.chat.completions.create(
        messages=messages, extra_body={"ignore_eos": True}, **GREEDY
    )
    message = answer.choices[0].message
    assert (message.role, message.content, message.refusal) == ("assistant", native.text, None)
    assert answer.object == "chat.completion"
    assert answer.model == "chat"
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id == answer.id


async def test_a_stream_is_the_same_in_pieces(client: openai.AsyncOpenAI) -> None:
    asked = GREEDY | {"messages": SAY}
    whole = await client.chat.completions.create(**asked)
    chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **asked)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_of_text_ends_with_its_usage(client: openai.AsyncOpenAI) -> None:
    asked = GREEDY | {"prompt": PROMPT}
    whole = await client.completions.create(**asked)
    options: Any = {"include_usage": True}
    stream = await client.completions.create(stream=True, stream_options=options, **asked)
    *chunks, last = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert (last.choices, last.usage) == ([], whole.usage)


async def test_the_sdks_own_stream_gathers_the_whole_answer(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = GREEDY | {"messages": SAY}
    text = (await client.chat.completions.create(**asked)).choices[0].message.content
    assert text
    asked["stop"] = text[2]
    whole = await client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "stop"
    async with client.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content


async def test_logprobs_are_those_of_the_engine(pod: Served, client: openai.AsyncOpenAI) -> None:
    answer = [
        message.chunk
        async for message in pod.client.generate(
            pb.GenerateRequest(
                text=f"<|user|>{PROMPT}", sampling_params=pb.SamplingParams(max_tokens=8, logprobs=True)
            )
        )
    ]
    native = [value for chunk in answer for value in chunk.logprobs]
    messages: Any = [{"role": "user", "content": PROMPT}]
    chat = await client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=0, **GREEDY)
    assert chat.choices[0].logprobs is not None
    content = chat.choices[0].logprobs.content or []
    assert [token.logprob for token in content] == pytest.approx(native, rel=1e-5)
    assert all(token.bytes is None or bytes(token.bytes).decode() == token.token for token in content)
    text = await client.completions.create(prompt=f"<|user|>{PROMPT}", logprobs=0, **GREEDY)
    logprobs = text.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == pytest.approx(native, rel=1e-5)
    tokens = logprobs.tokens or []
    assert logprobs.text_offset == [sum(map(len, tokens[:index])) for index in range(len(tokens))]


async def test_a_stream_holds_the_same_logprobs(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = GREEDY | {"prompt": PROMPT, "logprobs": 0}
    whole = (await client.completions.create(**asked)).choices[0].logprobs
    chunks = [chunk async for chunk in await client.completions.create(stream=True, **asked)]
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert whole is not None
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [value for part in parts for value in getattr(part, name)] == getattr(whole, name)


async def test_stop_seed_and_temperature_reach_the_engine(pod: Served, client: openai.AsyncOpenAI) -> None:
    native = await pod.generate(max_tokens=12, temperature=20.0, top_p=0.9, seed=7)
    asked: dict[str, Any] = {
        "model": "chat",
        "prompt": PROMPT,
        "max_tokens": 12,
        "temperature": 20,
        "top_p": 0.9,
    }
    asked["extra_body"] = {"ignore_eos": True}
    answer = await client.completions.create(seed=7, **asked)
    assert answer.choices[0].text == native.text
    stop = native.text[3]
    stopped = await client.completions.create(seed=7, stop=[stop, "never"], **asked)
    assert stopped.choices[0].text == native.text[: native.text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.helios["matched_stop"] == stop  # type: ignore[attr-defined]


async def test_what_only_early_exit_knows_is_told(pod: Served, client: openai.AsyncOpenAI) -> None:
    native = await pod.generate(f"<|user|>{PROMPT}", exit_policy=pb.ExitPolicy(layer_budget=EXITS[0]))
    messages: Any = [{"role": "user", "content": PROMPT}]
    asked: dict[str, Any] = GREEDY | {"messages": messages}
    asked["extra_body"] = {"helios": {"depth": EXITS[0]}, "ignore_eos": True}
    answer = await client.chat.completions.create(**asked)
    assert answer.choices[0].message.content == native.text
    told = answer.helios  # type: ignore[attr-defined]
    assert (told["depth"], told["layer_budget"], told["total_layers"]) == (EXITS[0], LAYERS, LAYERS)
    assert told["mean_confidence"] == pytest.approx(native.exit_stats.mean_confidence, rel=1e-5)
    assert len(told["confidences"]) == 8
    assert [(span["from_token"], span["depth"]) for span in told["spans"]] == [(0, EXITS[0])]
    *chunks, last = [chunk async for chunk in await client.chat.completions.create(stream=True, **asked)]
    by_token = [chunk.helios for chunk in chunks[1:]]  # type: ignore[attr-defined]
    assert [chunk["confidences"] for chunk in by_token] == [[value] for value in told["confidences"]]
    assert {chunk["depth"] for chunk in by_token} == {EXITS[0]}
    assert last.helios == {name: value for name, value in told.items() if name != "confidences"}  # type: ignore[attr-defined]


async def test_the_models(client: openai.AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert [(model.id, model.object) for model in listed] == [("chat", "model")]
    one = await client.models.retrieve("chat")
    assert one == listed[0]
    assert one.helios["exit_layers"] == list(EXITS)  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("org/other")


async def test_a_wrong_name_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="gpt", messages=SAY)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_leaving_a_stream_frees_the_row(pod: Served, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(stream=True, messages=SAY, **LONG)
    await anext(aiter(stream))
    assert await _loaded(pod, 1)
    await stream.close()
    await _nothing_runs(pod)


async def test_a_client_that_times_out_frees_the_row(pod: Served, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.3).completions.create(prompt=PROMPT, **LONG)
    await _nothing_runs(pod)


async def _nothing_runs(pod: Served) -> None:
    assert pod.server is not None

    async def idle() -> bool:
        load = await pod.load()
        assert pod.server is not None
        return (load.running, load.waiting, pod.server.pod.calls) == (0, 0, 0)

    await eventually(idle)


async def test_a_full_queue_says_when_to_come_back(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1, max_queue_size=1) as pod, sdk(pod) as client:
        running = [asyncio.create_task(client.completions.create(prompt=PROMPT, **LONG)) for _ in range(2)]
        await eventually(lambda: _loaded(pod, 2))
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(messages=SAY, **GREEDY)  # type: ignore[call-overload]
        assert raised.value.code == "queue_full"
        assert int(raised.value.response.headers["Retry-After"]) >= 1
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await _nothing_runs(pod)
        _, page = await pod.page("/metrics")
        assert 'helios_request_failure_total{code="RESOURCE_EXHAUSTED",model_name="chat"} 1.0' in page


async def _loaded(pod: Served, requests: int) -> bool:
    load = await pod.load()
    return load.running + load.waiting == requests


async def test_the_sdk_without_asyncio(pod: Served) -> None:
    def ask() -> str:
        with openai.OpenAI(base_url=f"{url(pod)}/v1", api_key="none") as client:
            stream = client.completions.create(prompt=PROMPT, stream=True, **GREEDY)
            return "".join(chunk.choices[0].text for chunk in stream)

    native = await pod.client.generate(
        pb.GenerateRequest(text=PROMPT, sampling_params=pb.SamplingParams(max_tokens=8))
    ).complete()
    assert await asyncio.to_thread(ask) == native.text


async def test_prompts_are_kept_for_reassessment_as_those_of_grpc_are(tiny: Path) -> None:
    async with serving(tiny, live_prompts=1) as pod, sdk(pod) as client:
        words = "Some years ago, never mind how long precisely"
        await client.chat.completions.create(messages=[{"role": "user", "content": words}], **GREEDY)  # type: ignore[call-overload]
        kept = await pod.control.GetPrompts(control_pb2.GetPromptsRequest())
        assert list(kept.prompts) == [f"<|user|>{words}"]
        assert (await pod.telemetry()).requests_finished == 1
