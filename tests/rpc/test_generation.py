"""Generation over a real port: what streams, what is refused and by which name, and what frees a row."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helios_proto.v1 import generation_pb2 as pb
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc import messages as messages_of_chats

from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, eventually, generate_request, serving

LONG = 3000
"""New tokens of a request that does not end by itself while a test looks."""


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def idle(pod: Served) -> bool:
    load = await pod.load()
    return load.running == 0 and load.waiting == 0 and load.kv_used_tokens == 0


async def begun(pod: Served, **fields: Any) -> tuple[Any, Any]:
    """A call that has produced its first token, and the messages that are still to come."""
    call = pod.client.stub.Generate(generate_request(**fields))
    messages = aiter(call)
    first = await anext(messages)
    assert first.chunk.token_ids
    return call, messages


# -- answers


async def test_the_chunks_are_the_answer(pod: Served, tiny: Path) -> None:
    answer = pod.client.generate(generate_request(logprobs=True, temperature=1.0, seed=5))
    messages = [message async for message in answer]
    chunks, complete = [m.chunk for m in messages[:-1]], messages[-1].complete
    assert "".join(chunk.text for chunk in chunks) == complete.text
    assert [token for chunk in chunks for token in chunk.token_ids] == complete.output_ids
    assert [chunk.index for chunk in chunks] == list(range(8))
    assert all(chunk.depth == LAYERS for chunk in chunks)
    assert all(len(c.logprobs) == len(c.confidences) == len(c.breaches) == len(c.token_ids) for c in chunks)
    assert complete.finish_reason == pb.FINISH_REASON_LENGTH
    ids = Tokenizer.open(tiny).encode(PROMPT, add_special=True)
    assert (complete.usage.prompt_tokens, complete.usage.completion_tokens) == (len(ids), 8)
    assert complete.exit_stats.mean_layers == complete.exit_stats.layer_budget == LAYERS
    assert complete.model == "chat"
    mean = sum(c for chunk in chunks for c in chunk.confidences) / 8
    assert complete.exit_stats.mean_confidence == pytest.approx(mean, rel=1e-5)


async def test_one_message_holds_what_the_chunks_do(pod: Served) -> None:
    streamed = await pod.generate()
    messages = [m async for m in pod.client.generate(generate_request(stream=False))]
    assert [m.WhichOneof("response") for m in messages] == ["complete"]
    assert messages[0].complete.output_ids == streamed.output_ids


async def test_ids_are_the_same_as_their_text(pod: Served, tiny: Path) -> None:
    ids = Tokenizer.open(tiny).encode(PROMPT, add_special=True)
    tokenized = pb.TokenizedInput(input_ids=ids)
    assert (await pod.generate(tokenized=tokenized)).output_ids == (await pod.generate()).output_ids


async def test_a_long_text_is_served_beside_short_ones(pod: Served) -> None:
    long, short = await asyncio.gather(pod.generate("word " * 600), pod.generate())
    assert long.usage.prompt_tokens > 2000
    assert short.output_ids == (await pod.generate()).output_ids


async def test_a_request_may_run_at_a_shallower_exit(pod: Served) -> None:
    answer = pod.client.generate(generate_request(exit_policy=pb.ExitPolicy(layer_budget=EXITS[0])))
    complete = await answer.complete()
    assert complete.exit_stats.mean_layers == EXITS[0]
    assert (await answer.trailing())["helios-depth"] == str(EXITS[0])


async def test_trailing_metadata_names_what_produced_the_answer(pod: Served) -> None:
    answer = pod.client.generate(generate_request())
    await answer.complete()
    trailing, info = await answer.trailing(), await pod.info()
    (span,) = await answer.spans()
    assert span == {
        "fromToken": 0,
        "candidate": "tiny",
        "modelUri": info.model_uri,
        "revision": info.model_revision,
        "backbone": info.backbone_fingerprint,
        "exits": "",
        "depth": LAYERS,
    }
    assert trailing == {
        "helios-model": "chat",
        "helios-candidate": "tiny",
        "helios-revision": info.model_revision,
        "helios-depth": str(LAYERS),
        "helios-layer-budget": str(LAYERS),
        "helios-weight-dtype": "auto",
        "helios-kv-cache-dtype": "auto",
        "helios-spans": json.dumps([span], separators=(",", ":")),
    }


async def test_model_info_and_load(pod: Served) -> None:
    info, load = await pod.info(), await pod.load()
    assert (info.model, info.candidate, info.dtype) == ("chat", "tiny", "float64")
    assert (info.weight_dtype, info.kv_cache_dtype) == ("auto", "auto")
    assert (info.layer_budget, info.total_layers, list(info.exit_layers)) == (LAYERS, LAYERS, list(EXITS))
    assert (info.max_context_tokens, info.vocabulary_size) == (4096, 320)
    assert info.max_request_tokens == min(4096, load.kv_capacity_tokens + 1)
    assert (load.max_batch_size, load.max_queue_size, load.draining) == (8, 16, False)
    assert load.kv_capacity_tokens > 0


# -- refusals


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"model": "other"}, "NOT_FOUND", "model"),
        ({"text": ""}, "INVALID_ARGUMENT", "text"),
        ({"tokenized": pb.TokenizedInput()}, "INVALID_ARGUMENT", "tokenized.input_ids"),
        ({"tokenized": pb.TokenizedInput(input_ids=[320])}, "INVALID_ARGUMENT", "tokenized.input_ids"),
        ({"text": "x" * 5000}, "INVALID_ARGUMENT", "input"),
        ({"max_tokens": 0}, "INVALID_ARGUMENT", "sampling_params.max_tokens"),
        ({"max_tokens": 5000}, "INVALID_ARGUMENT", "sampling_params.max_tokens"),
        ({"min_tokens": 9}, "INVALID_ARGUMENT", "sampling_params.min_tokens"),
        ({"temperature": -1.0}, "INVALID_ARGUMENT", "sampling_params.temperature"),
        ({"temperature": float("nan")}, "INVALID_ARGUMENT", "sampling_params.temperature"),
        ({"top_p": 0.0}, "INVALID_ARGUMENT", "sampling_params.top_p"),
        ({"min_p": 1.5}, "INVALID_ARGUMENT", "sampling_params.min_p"),
        ({"repetition_penalty": 0.0}, "INVALID_ARGUMENT", "sampling_params.repetition_penalty"),
        ({"stop": [""]}, "INVALID_ARGUMENT", "sampling_params.stop"),
        ({"stop": ["x"] * 9}, "INVALID_ARGUMENT", "sampling_params.stop"),
        ({"stop_token_ids": [320]}, "INVALID_ARGUMENT", "sampling_params.stop_token_ids"),
        ({"exit_policy": pb.ExitPolicy(layer_budget=3)}, "INVALID_ARGUMENT", "exit_policy.layer_budget"),
        ({"exit_policy": pb.ExitPolicy(layer_budget=9)}, "INVALID_ARGUMENT", "exit_policy.layer_budget"),
    ],
)
async def test_a_refusal_names_the_field_and_the_fix(pod: Served, fields: Any, code: str, field: str) -> None:
    error = await refusal(pod.generate(**fields))
    assert error.code().name == code
    name, _, rest = (error.details() or "").partition(": ")
    assert name == field
    assert "; " in rest


async def test_a_request_without_input_is_refused(pod: Served) -> None:
    error = await refusal(pod.client.generate(pb.GenerateRequest()).complete())
    assert error.details() == "input: neither text, tokenized nor chat is given; Give one of them"


async def test_an_id_in_use_is_refused_and_its_owner_goes_on(pod: Served) -> None:
    _, messages = await begun(pod, request_id="twice", max_tokens=200)
    error = await refusal(pod.generate(request_id="twice"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith("request_id: ")
    *_, last = [message async for message in messages]
    assert len(last.complete.output_ids) == 200
    assert len((await pod.generate(request_id="twice")).output_ids) == 8


async def test_a_full_queue_says_when_to_come_back(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1, max_queue_size=1) as pod:
        running, _ = await begun(pod, max_tokens=LONG)
        queued = asyncio.create_task(pod.generate())
        await eventually(lambda: _waiting(pod, 1))
        error = await refusal(pod.generate())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(error)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        running.cancel()
        assert len((await queued).output_ids) == 8


async def _waiting(pod: Served, count: int) -> bool:
    return (await pod.load()).waiting == count


# -- ends


async def test_a_client_that_leaves_frees_its_row(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1) as pod:
        call, _ = await begun(pod, max_tokens=LONG)
        waiting = asyncio.create_task(pod.generate())
        await eventually(lambda: _waiting(pod, 1))
        call.cancel()
        assert len((await waiting).output_ids) == 8
        await eventually(lambda: idle(pod))


async def test_a_client_whose_connection_breaks_frees_its_row(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1) as pod:
        call, _ = await begun(pod, max_tokens=LONG)
        assert pod.server is not None
        for connection in list(pod.server._generation._relay.clients):
            connection.close()
        await eventually(lambda: idle(pod))
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_deadline_frees_the_row(pod: Served) -> None:
    call = pod.client.generate(generate_request(max_tokens=LONG), timeout=0.3)
    error = await refusal(call.complete())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: idle(pod))


async def test_a_deadline_that_passes_in_the_queue_leaves_the_queue(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1) as pod:
        running, _ = await begun(pod, max_tokens=LONG)
        error = await refusal(pod.client.generate(generate_request(), timeout=0.2).complete())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: _waiting(pod, 0))
        assert (await pod.load()).running == 1
        running.cancel()


async def test_abort_completes_the_stream(pod: Served) -> None:
    call, messages = await begun(pod, request_id="long", max_tokens=LONG)
    assert (await pod.client.stub.Abort(pb.AbortRequest(request_id="long"))).found
    *_, last = [message async for message in messages]
    assert last.complete.finish_reason == pb.FINISH_REASON_ABORT
    assert await call.code() is grpc.StatusCode.OK
    assert not (await pod.client.stub.Abort(pb.AbortRequest(request_id="long"))).found
    error = await refusal(pod.client.stub.Abort(pb.AbortRequest()))
    assert (error.details() or "").startswith("request_id: ")


async def test_an_id_has_a_bound(pod: Served) -> None:
    assert (await pod.generate(request_id="ä" * 256)).output_ids
    for call in (
        pod.generate(request_id="x" * 257),
        pod.client.stub.Abort(pb.AbortRequest(request_id="x" * 257)),
    ):
        error = await refusal(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "request_id: has 257 characters; Give at most 256"


async def test_stop_tokens_have_a_bound(pod: Served) -> None:
    assert (await pod.generate(stop_token_ids=[3] * 1024)).output_ids
    error = await refusal(pod.generate(stop_token_ids=[3] * 1025))
    assert (
        error.details() == "sampling_params.stop_token_ids: 1025 ids is out of range; Give at most 1024 ids"
    )


async def test_a_large_chat_is_read_where_no_stream_waits_for_it(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, read = [], messages_of_chats.chat

    def noted(chat: pb.ChatInput) -> list[dict[str, str]]:
        where.append(threading.get_ident())
        return read(chat)

    monkeypatch.setattr(messages_of_chats, "chat", noted)
    message = pb.ChatMessage(role="user", content="a")
    await pod.generate(chat=pb.ChatInput(messages=[message]))
    await refusal(pod.generate(chat=pb.ChatInput(messages=[message] * 9000)))
    assert [thread == threading.get_ident() for thread in where] == [True, False]


async def test_stop_strings_end_the_text_before_them(pod: Served) -> None:
    whole = await pod.generate(max_tokens=30, temperature=1.0, seed=3)
    stop = whole.text[8:10]
    stopped = await pod.generate(max_tokens=30, temperature=1.0, seed=3, stop=[stop])
    assert (stopped.finish_reason, stopped.matched_stop) == (pb.FINISH_REASON_STOP, stop)
    assert stopped.text == whole.text[: whole.text.index(stop)]


async def test_many_at_once_all_end_as_they_would_alone(pod: Served) -> None:
    seeds = range(20)
    together = await asyncio.gather(*(pod.generate(temperature=1.0, seed=seed) for seed in seeds))
    alone = [await pod.generate(temperature=1.0, seed=seed) for seed in seeds]
    assert [answer.output_ids for answer in together] == [answer.output_ids for answer in alone]
