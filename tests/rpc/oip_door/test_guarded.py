"""Callers' tokens hold for every call of the protocol, and count each request of a stream by name."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from helios_proto.inference import open_inference_pb2 as pb

from tests.rpc.oip_door.wire import request, speaking
from tests.rpc.pods import eventually, serving
from tests.rpc.test_tokens import Tokens, bearer

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


async def test_every_call_asks_for_a_token_and_requests_are_counted_by_it(tiny: Path, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    async with serving(tiny, access=tokens.access()) as pod, speaking(pod) as stub:
        for method in SERVICE.methods:
            asked = method.input_type._concrete_class()
            streams = method.name == "ModelStreamInfer"
            for wrong in (None, "wrong", tokens.control.read_text()):
                call = getattr(stub, method.name)(iter([asked]) if streams else asked, metadata=bearer(wrong))
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await (call.read() if streams else call)
                assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stream = [request(stream=True), request(), request(text="")]
        answers = stub.ModelStreamInfer(iter(stream), metadata=bearer(tokens.alice))
        assert [answer async for answer in answers]
        metrics = (await pod.page("/metrics"))[1]
    for code, times in (("OK", 2), ("INVALID_ARGUMENT", 1)):
        counted = f'caller_requests_total{{caller="alice",code="{code}",model_name="chat"}} {times}.0'
        assert counted in metrics
    assert 'caller_generation_tokens_total{caller="alice",model_name="chat"} 16.0' in metrics


@pytest.mark.usefixtures("quick_looks")
async def test_a_revoked_token_is_refused_on_a_stream_that_stands(tiny: Path, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    async with serving(tiny, access=tokens.access()) as pod, speaking(pod) as stub:
        alice, bob = (stub.ModelStreamInfer(metadata=bearer(token)) for token in (tokens.alice, tokens.bob))
        for stream in (alice, bob):
            await stream.write(request())
            assert not (await stream.read()).error_message
        (tokens.folder / "alice").unlink()

        async def refused() -> bool:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ModelInfer(pb.ModelInferRequest(), metadata=bearer(tokens.alice))
            return error.value.code() is grpc.StatusCode.UNAUTHENTICATED

        await eventually(refused)
        for stream in (alice, bob):
            await stream.write(request(id="later"))
        answer = await alice.read()
        assert "UNAUTHENTICATED: authorization: the token is unknown here, or has" in answer.error_message
        assert answer.infer_response.id == "later"
        assert tokens.alice not in str(answer)
        assert not (await bob.read()).error_message
