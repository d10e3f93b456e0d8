"""ModelStreamInfer: requests side by side, failures that their stream outlives, farewell, slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from helios_proto.inference import open_inference_pb2 as pb
from helios_proto.inference import open_inference_pb2_grpc
from helios_server.rpc import stream
from helios_server.rpc.oip import many, names

from tests.rpc.oip_door.wire import heard, request, speaking, told
from tests.rpc.pods import Served, eventually, serving

TOKENS = 120


class Held:
    """A stream whose client has not said that no more comes."""

    def __init__(self, stub: Any) -> None:
        self._more: asyncio.Queue[Any] = asyncio.Queue()
        self.call = stub.ModelStreamInfer(self._given())

    async def _given(self) -> AsyncIterator[pb.ModelInferRequest]:
        while (made := await self._more.get()) is not None:
            yield made

    def send(self, made: pb.ModelInferRequest | None) -> None:
        """None: no more."""
        self._more.put_nowait(made)

    async def read(self) -> pb.ModelStreamInferResponse:
        answer = await self.call.read()
        assert answer is not grpc.aio.EOF
        return answer

    async def rest(self) -> list[pb.ModelStreamInferResponse]:
        """Until the end, which `status` tells."""
        answers = []
        try:
            while (answer := await self.call.read()) is not grpc.aio.EOF:
                answers.append(answer)
        except grpc.aio.AioRpcError:
            pass
        return answers

    async def status(self) -> tuple[grpc.StatusCode, str]:
        return await self.call.code(), await self.call.details()


def streamed(tokens: int = TOKENS, **fields: Any) -> pb.ModelInferRequest:
    return request(stream=True, max_tokens=tokens, **fields)


def is_final(answer: pb.ModelStreamInferResponse) -> bool:
    return answer.infer_response.parameters["triton_final_response"].bool_param


async def _load(pod: Served, running: int, waiting: int = 0) -> bool:
    load = await pod.load()
    return (load.running, load.waiting) == (running, waiting)


async def test_an_id_that_is_long_is_refused_and_said_in_short(pod: Served) -> None:
    """Each answer says it again: else a client would get a thousand times what it sent, or more than it
    takes."""
    fits, long = "ä" * 256, "x" * 3_000_000
    answers = await heard(pod, request(id=long), request(id=fits))
    failed = next(answer for answer in answers if answer.error_message)
    assert failed.error_message.startswith("INVALID_ARGUMENT: id: has 3000000 characters; Give at most 256")
    assert failed.infer_response.id == long[:256]
    assert len(failed.SerializeToString()) < 1000
    assert [answer.infer_response.id for answer in answers if not answer.error_message] == [fits]


async def test_each_answer_has_what_was_asked_for(pod: Served) -> None:
    outputs = [
        "text_output",
        "exit_depth",
        "confidence",
        "num_output_tokens",
        "cumulative_logprob",
        "finish_reason",
    ]
    native = await pod.generate(max_tokens=5)
    answers = await heard(pod, streamed(5, outputs=outputs))
    chunks = [told(answer.infer_response) for answer in answers]
    assert all(list(chunk) == outputs for chunk in chunks)
    assert "".join(chunk["text_output"][0] for chunk in chunks) == native.text
    assert sum(chunk["num_output_tokens"][0] for chunk in chunks) == 5
    assert [each for chunk in chunks for each in chunk["exit_depth"]] == [6] * 5
    assert sum(len(chunk["confidence"]) for chunk in chunks) == 5
    assert [chunk["finish_reason"] for chunk in chunks] == [[""]] * (len(chunks) - 1) + [["length"]]
    logprobs = [chunk["cumulative_logprob"][0] for chunk in chunks]
    assert logprobs == sorted(logprobs, reverse=True)


async def test_a_failure_says_whose_it_is_and_when_to_come_back(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1, max_queue_size=1) as pod, speaking(pod) as stub:
        held = Held(stub)
        held.send(streamed(2000, id="a"))
        await held.read()
        held.send(streamed(4, id="b"))
        await eventually(lambda: _load(pod, 1, 1))
        held.send(streamed(4, id="c"))
        failed = await held.read()
        while not failed.error_message:
            failed = await held.read()
        assert failed.error_message.startswith("RESOURCE_EXHAUSTED: max_queue_size: 1 requests are waiting")
        assert failed.error_message.endswith(" (request c)")
        answer = failed.infer_response
        assert (answer.id, answer.model_name, len(answer.outputs), is_final(failed)) == ("c", "chat", 0, True)
        assert answer.parameters["code"].string_param == "RESOURCE_EXHAUSTED"
        assert answer.parameters["retry_after_ms"].int64_param > 0
        held.call.cancel()
        await eventually(lambda: _load(pod, 0))


async def test_what_is_no_message_fails_alone(pod: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )(iter([b"\xff\xff", streamed(2, id="after").SerializeToString()]))
        answers = [answer async for answer in call]
    [failed] = [answer.error_message for answer in answers if answer.error_message]
    assert failed.startswith("INVALID_ARGUMENT: message: 2 bytes are no message")
    assert [answer.infer_response.id for answer in answers if is_final(answer)][-1] == "after"


async def test_more_than_a_stream_may_hold_open_wait_their_turn(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_MOST_OPEN", 2)
    answers = await heard(pod, *(streamed(3, id=str(index)) for index in range(7)))
    assert sorted(answer.infer_response.id for answer in answers if is_final(answer)) == [*"0123456"]


async def test_what_is_open_on_a_stream_has_a_bound_in_bytes(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for none but the first, they are answered in turn."""
    monkeypatch.setattr(many, "_MOST_OPEN_BYTES", 1)
    answers = await heard(pod, *(streamed(3, id=str(index)) for index in range(4)))
    ids = [answer.infer_response.id for answer in answers]
    assert ids == sorted(ids)
    assert [answer.infer_response.id for answer in answers if is_final(answer)] == [*"0123"]


async def test_a_client_that_does_not_read_loses_its_row_and_not_its_stream(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it is bounded; when it reads again, it hears so, and may ask again."""
    monkeypatch.setattr(stream, "MOST_UNREAD", 8)
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{pod.ports.port}", [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    ) as channel:
        held = Held(open_inference_pb2_grpc.GRPCInferenceServiceStub(channel))
        long = "slow" + "\U0001f600" * 252  # that comes back with each answer
        held.send(streamed(3000, id=long, outputs=list(names.OUTPUTS)))
        await held.read()
        await eventually(lambda: _load(pod, 0))
        held.send(streamed(2, id="next"))
        held.send(None)
        answers = await held.rest()
    [failed] = [answer for answer in answers if answer.error_message]
    assert "that the client did not read" in failed.error_message
    assert failed.infer_response.parameters["code"].string_param == "RESOURCE_EXHAUSTED"
    assert (answers[-1].infer_response.id, is_final(answers[-1])) == ("next", True)
    assert await held.status() == (grpc.StatusCode.OK, "")


async def test_a_drain_lets_open_requests_end_and_then_the_stream(pod: Served) -> None:
    """What comes meanwhile is refused by name; a stream on which nothing is open is told at once."""
    assert pod.server is not None
    async with speaking(pod) as stub:
        busy, idle = Held(stub), Held(stub)
        for name in ("a", "b"):
            busy.send(streamed(150, id=name))
        idle.send(streamed(2))
        while not is_final(await idle.read()):
            pass
        await eventually(lambda: _load(pod, 2))
        draining = asyncio.create_task(pod.server.drain())
        assert await idle.rest() == []
        unavailable, words = await idle.status()
        assert (unavailable, words) == (
            grpc.StatusCode.UNAVAILABLE,
            "server: is draining; Open another stream: another pod will answer",
        )
        assert not draining.done()
        busy.send(streamed(2, id="late"))
        answers = await busy.rest()
        assert (await busy.status())[0] is grpc.StatusCode.UNAVAILABLE
        await draining
    finals = {answer.infer_response.id: answer for answer in answers if is_final(answer)}
    assert finals["late"].error_message.startswith("UNAVAILABLE: server: is draining")
    assert finals["late"].infer_response.parameters["retry_after_ms"].int64_param > 0
    assert (finals["a"].error_message, finals["b"].error_message) == ("", "")


async def test_what_outlives_the_drain_ends_with_the_word_to_come_back(tiny: Path) -> None:
    """As `drain` and `close` do when the time is over."""
    async with serving(tiny) as pod, speaking(pod) as stub:
        assert pod.server is not None
        held = Held(stub)
        held.send(streamed(3900, id="long"))
        held.send(streamed(4, id="short"))
        while not is_final(answer := await held.read()):
            pass
        assert (answer.infer_response.id, answer.error_message) == ("short", "")
        await pod.server.begin_drain()
        assert not is_final(await held.read())
        await pod.server.close()
        [last] = [answer for answer in await held.rest() if is_final(answer)]
        assert (await held.status())[0] is grpc.StatusCode.UNAVAILABLE
    assert last.infer_response.id == "long"
    assert last.error_message == (
        "UNAVAILABLE: server: was stopped; Send the request to another server (request long)"
    )
    assert last.infer_response.parameters["retry_after_ms"].int64_param > 0


async def test_while_the_model_loads_requests_are_told_to_come_back(tiny: Path) -> None:
    async with serving(tiny, load=False) as pod, speaking(pod) as stub:
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live is True
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready is False
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="chat"))).ready is False
        [failed] = await heard(pod, streamed())
        assert failed.error_message == "UNAVAILABLE: model: the model is loading; Try again"
        index = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert [(each.state, each.reason) for each in index] == [("LOADING", "the model is loading")]
        assert not (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models


async def test_another_model_or_version_is_not_found(pod: Served) -> None:
    async with speaking(pod) as stub:
        for call, asked in (
            (stub.ModelReady, pb.ModelReadyRequest),
            (stub.ModelMetadata, pb.ModelMetadataRequest),
            (stub.ModelConfig, pb.ModelConfigRequest),
            (stub.ModelStatistics, pb.ModelStatisticsRequest),
        ):
            for field, value in (("name", "other"), ("version", "2")):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(asked(**{field: value}))
                assert raised.value.code() is grpc.StatusCode.NOT_FOUND
                assert (raised.value.details() or "").startswith(
                    f"{field}: {value} is not served here; Ask for"
                )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="mine"))
        assert "there is one repository" in (raised.value.details() or "")
