"""INTERNAL: what a client, the metrics and the probes see of a request that fails alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from helios_proto.v1 import generation_pb2 as pb

from tests.checkpoints import make_checkpoint, spoil_token
from tests.rpc.pods import EXITS, LAYERS, Served, serving

SPOILT = 260


@pytest.fixture(scope="session")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that overflows on one token."""
    directory = tmp_path_factory.mktemp("spoilt") / "model"
    make_checkpoint(directory, layers=LAYERS, tied=False, max_position_embeddings=4096)
    return spoil_token(directory, SPOILT)


async def refused(pod: Served, **fields: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pod.generate(**fields)
    return raised.value


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 1}])
async def test_logits_that_are_not_finite_end_one_call(spoilt: Path, sampling: dict[str, Any]) -> None:
    async with serving(spoilt) as pod:
        alone = await pod.generate(max_tokens=200)
        beside = asyncio.create_task(pod.generate(max_tokens=200))
        bad = pb.TokenizedInput(input_ids=[1, 2, SPOILT, 3])
        for depth in (0, *EXITS):
            error = await refused(
                pod, tokenized=bad, exit_policy=pb.ExitPolicy(layer_budget=depth), **sampling
            )
            assert error.code() is grpc.StatusCode.INTERNAL
            assert error.details().startswith("logits: not finite; ")
            assert dict(error.trailing_metadata())["helios-model"] == "chat"
        assert (await beside).output_ids == alone.output_ids
        assert (await pod.generate(max_tokens=200)).output_ids == alone.output_ids
        told = await pod.telemetry()
        assert (told.requests_failed, told.requests_finished) == (3, 3)
        _, page = await pod.page("/metrics")
        assert 'helios_request_failure_total{code="INTERNAL",model_name="chat"} 3.0' in page
        assert "nan" not in page.lower()
        assert [(await pod.page(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


class Panic(BaseException):
    """No Exception, as the panics of the tokenizers library are none."""


async def test_a_panic_in_a_call_ends_that_call(pod: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod.server is not None
    tokenizer = pod.server.pod.loaded_engine().serving.model.tokenizer

    def encode(text: str, add_special: bool = False) -> list[int]:
        raise Panic("byte index 1 is not a char boundary")

    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "encode", encode)
        async with asyncio.timeout(240):
            error = await refused(pod)
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INTERNAL,
        "the server failed; its log has the trace",
    )
    await pod.generate()


async def test_an_observer_that_fails_keeps_nobody_from_the_answer(
    pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the metrics or the live prompts make of an event, the client gets it."""
    assert pod.server is not None

    def broken(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(pod.server.pod.prompts, "add", broken)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    async with asyncio.timeout(240):
        assert (await pod.generate()).finish_reason == pb.FINISH_REASON_LENGTH
