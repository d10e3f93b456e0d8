"""The Control port: who may use it, what it changes while streams run, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helios_proto.v1 import control_pb2 as pb
from helios_proto.v1 import generation_pb2, generation_pb2_grpc
from helios_server.errors import InvalidRequest
from helios_server.rpc.auth import Token
from helios_server.telemetry.energy import DeclaredMeter
from helios_server.telemetry.prompts import prompts_digest

from tests.checkpoints import make_checkpoint
from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, generate_request, serving

STREAMS, TOKENS = 4, 400


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def late(pod: Served) -> grpc.aio.AioRpcError:
    """The refusal that a request meets which nobody tries again."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel:
        return await refusal(
            aiter(generation_pb2_grpc.GenerationStub(channel).Generate(generate_request())).__anext__()
        )


# -- the token


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("Basic c2VjcmV0", grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer ", grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer other", grpc.StatusCode.PERMISSION_DENIED),
        ("Bearer secretsecret", grpc.StatusCode.PERMISSION_DENIED),
        ("Bearer secret", None),
    ],
)
async def test_control_asks_for_its_token(tiny: Path, tmp_path: Path, header: str | None, code: Any) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    metadata = [("authorization", header)] if header is not None else []
    async with serving(tiny, token=token) as pod:
        calls = [
            pod.control.GetLimits(pb.GetLimitsRequest(), metadata=metadata),
            pod.control.SetLimits(pb.SetLimitsRequest(), metadata=metadata),
            pod.control.GetTelemetry(pb.GetTelemetryRequest(), metadata=metadata),
            pod.control.GetPrompts(pb.GetPromptsRequest(), metadata=metadata),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [r.code() for r in results if isinstance(r, grpc.aio.AioRpcError)]
        denied = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
        assert denied.intersection(refused) == ({code} if code else set())
        if code:
            drain = pod.control.Drain(pb.DrainRequest(), metadata=metadata)
            assert (await refusal(anext(aiter(drain)))).code() is code
        assert await pod.generate()  # applications need none


async def test_a_replaced_token_holds_from_the_next_call(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    async with serving(tiny, token=file) as pod:
        ask = pod.control.GetLimits
        await ask(pb.GetLimitsRequest(), metadata=[("authorization", "Bearer first")])
        file.write_text("second")
        await ask(pb.GetLimitsRequest(), metadata=[("authorization", "Bearer second")])
        error = await refusal(ask(pb.GetLimitsRequest(), metadata=[("authorization", "Bearer first")]))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        file.unlink()
        await ask(pb.GetLimitsRequest(), metadata=[("authorization", "Bearer second")])


def test_a_missing_or_empty_token_file_is_refused_by_its_argument(tmp_path: Path) -> None:
    for file in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").write_text("\n")
        with pytest.raises(InvalidRequest, match="control-token-file: "):
            Token(file)


# -- limits


async def test_limits_come_back_as_they_were_set(pod: Served) -> None:
    got = await pod.control.GetLimits(pb.GetLimitsRequest())
    assert (got.limits.generation, got.limits.max_batch_size, list(got.limits.exit_layers)) == (
        1,
        8,
        [*EXITS],
    )
    assert (got.capacity.layers_loaded, got.capacity.total_layers) == (LAYERS, LAYERS)
    changed = await pod.set_limits(layer_budget=EXITS[0])
    again = await pod.control.GetLimits(pb.GetLimitsRequest())
    assert changed.limits == again.limits
    assert changed.capacity == again.capacity
    assert again.capacity.layers_loaded == EXITS[0]


async def streams(pod: Served, count: int = STREAMS) -> list[Any]:
    """Answers under way, each with its first token."""
    answers = []
    for seed in range(count):
        answer = pod.client.generate(generate_request(f"{PROMPT} {seed}", max_tokens=TOKENS))
        messages = aiter(answer)
        assert (await anext(messages)).chunk.token_ids
        answers.append((answer, messages))
    return answers


async def depths_and_ids(answers: list[Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Per answer: the depths of its spans, in order, and its tokens."""
    depths, ids = [], []
    for answer, messages in answers:
        *_, last = [message async for message in messages]
        ids.append(list(last.complete.output_ids))
        depths.append([span["depth"] for span in await answer.spans()])
    return depths, ids


async def test_shrinking_moves_every_stream_and_drops_none(pod: Served) -> None:
    answers = await streams(pod)
    changed = await pod.set_limits(layer_budget=EXITS[1])
    assert changed.seconds >= 0
    depths, ids = await depths_and_ids(answers)
    assert depths == [[LAYERS, EXITS[1]]] * STREAMS
    assert [len(tokens) for tokens in ids] == [TOKENS] * STREAMS
    assert (await pod.generate()).exit_stats.mean_layers == EXITS[1]


async def test_growing_leaves_streams_at_their_depth_and_deepens_the_next(tiny: Path) -> None:
    async with serving(tiny, layer_budget=EXITS[0]) as pod:
        answers = await streams(pod)
        await pod.set_limits(layer_budget=0)
        assert (await pod.generate()).exit_stats.mean_layers == LAYERS
        depths, ids = await depths_and_ids(answers)
        assert depths == [[EXITS[0]]] * STREAMS
        assert [len(tokens) for tokens in ids] == [TOKENS] * STREAMS


async def test_swapping_heads_opens_a_new_span(tiny: Path, heads: Path) -> None:
    async with serving(tiny, layer_budget=EXITS[1]) as pod:
        answers = await streams(pod)
        changed = await pod.set_limits(exits_uri=f"file://{heads}", candidate="other")
        digest = changed.limits.exits_digest
        for answer, messages in answers:
            *_, last = [message async for message in messages]
            assert len(last.complete.output_ids) == TOKENS
            spans = await answer.spans()
            assert [(s["exits"], s["candidate"]) for s in spans] == [("", "tiny"), (digest, "other")]


async def test_another_model_in_place_takes_the_streams_along(pod: Served, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", layers=3, seed=9, max_position_embeddings=4096)
    answers = await streams(pod)
    changed = await pod.set_limits(model_uri=f"file://{other}", model_revision="", exit_layers=[])
    assert changed.reprefilled == STREAMS
    for answer, messages in answers:
        *_, last = [message async for message in messages]
        assert len(last.complete.output_ids) == TOKENS
        assert [span["modelUri"] for span in await answer.spans()][-1] == f"file://{other}"
    assert (await pod.info()).total_layers == 3


async def test_another_precision_in_place_takes_the_streams_along(pod: Served) -> None:
    answers = await streams(pod)
    changed = await pod.set_limits(weight_dtype="int8", kv_cache_dtype="int8")
    assert changed.reprefilled == STREAMS
    assert changed.seconds > 0
    assert (changed.limits.weight_dtype, changed.limits.kv_cache_dtype) == ("int8", "int8")
    for answer, messages in answers:
        *_, last = [message async for message in messages]
        assert len(last.complete.output_ids) == TOKENS
        assert (last.complete.weight_dtype, last.complete.kv_cache_dtype) == ("int8", "int8")
        before, after = await answer.spans()
        assert "weightDtype" not in before
        assert (after["weightDtype"], after["kvCacheDtype"]) == ("int8", "int8")
        assert (await answer.trailing())["helios-weight-dtype"] == "int8"
    info = await pod.info()
    assert (info.weight_dtype, info.kv_cache_dtype, info.dtype) == ("int8", "int8", "float64")
    _, page = await pod.page("/metrics")
    assert 'kv_cache_dtype="int8",model_name="chat",weight_dtype="int8"} 1.0' in page
    error = await refusal(pod.set_limits(kv_cache_dtype="fp8"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (error.details() or "").startswith("limits.kv_cache_dtype: 'fp8' needs a CUDA device")


async def test_a_refused_change_changes_nothing_and_is_remembered(pod: Served) -> None:
    before = (await pod.control.GetLimits(pb.GetLimitsRequest())).limits
    error = await refusal(pod.set_limits(layer_budget=LAYERS + 1))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (error.details() or "").startswith("limits.layer_budget: ")
    error = await refusal(pod.set_limits(memory_mib=1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    now = await pod.telemetry()
    assert now.limits == before
    assert (now.refused.generation, now.refused.message) == (2, error.details())
    await pod.set_limits(max_batch_size=2)
    assert not (await pod.telemetry()).HasField("refused")


async def test_a_change_decided_on_old_limits_is_aborted(pod: Served) -> None:
    await pod.set_limits(max_batch_size=4)
    limits = (await pod.control.GetLimits(pb.GetLimitsRequest())).limits
    limits.generation += 1
    stale = pb.SetLimitsRequest(limits=limits, if_generation=1)
    error = await refusal(pod.control.SetLimits(stale))
    assert error.code() is grpc.StatusCode.ABORTED
    await pod.control.SetLimits(pb.SetLimitsRequest(limits=limits, if_generation=2))


async def test_a_call_without_limits_is_refused(pod: Served) -> None:
    error = await refusal(pod.control.SetLimits(pb.SetLimitsRequest()))
    assert (error.code(), (error.details() or "")[:7]) == (grpc.StatusCode.INVALID_ARGUMENT, "limits:")


# -- telemetry and prompts


async def test_telemetry_counts_what_was_served(tiny: Path) -> None:
    async with serving(tiny, energy=DeclaredMeter(10), layer_budget=EXITS[1], breach_threshold=1.0) as pod:
        await asyncio.gather(*(pod.generate(max_tokens=20) for _ in range(4)))
        with pytest.raises(grpc.aio.AioRpcError):
            await pod.generate(max_tokens=0)
        now = await pod.telemetry()
        assert now.ready
        assert not now.draining
        assert (now.requests_finished, now.requests_since_change, now.running) == (4, 4, 0)
        assert now.prompt_tokens == 4 * (await pod.generate()).usage.prompt_tokens
        assert sum(now.ttft_ms.counts) == sum(now.e2e_ms.counts) == 4
        assert sum(now.itl_ms.counts) == 4 * 19
        assert sum(now.confidence_percent.counts) == 4 * 20
        assert len(now.ttft_ms.counts) == len(now.ttft_ms.upper_bounds) + 1
        assert 1 <= now.batch_reached <= 4
        assert now.breaches.in_window == 80
        assert {step.layers for step in now.steps} == {EXITS[1]}
        assert now.generation_tokens_per_second > 0
        assert (now.energy.source, now.energy.joules > 0) == ("declared", True)
        assert now.capacity.layers_loaded == EXITS[1]
        assert now.uptime_seconds > 0
        assert now.boot_id


async def test_the_warm_up_is_counted_nowhere(pod: Served) -> None:
    now = await pod.telemetry()
    assert now.ready
    assert (now.requests_finished, now.prompt_tokens, now.generation_tokens) == (0, 0, 0)
    assert (sum(now.ttft_ms.counts), now.batch_reached, len(now.steps)) == (0, 0, 0)
    assert "helios_generation_tokens_total{" not in (await pod.page("/metrics"))[1]


async def test_prompts_are_kept_only_with_consent_and_frozen_when_enough_are_there(tiny: Path) -> None:
    async with serving(tiny) as pod:
        await pod.generate()
        assert (await refusal(pod.control.GetPrompts(pb.GetPromptsRequest()))).code().name == "NOT_FOUND"
        assert not (await pod.telemetry()).HasField("prompts")

        await pod.set_limits(live_prompts=3)
        texts = [f"{PROMPT}, number {i}" for i in range(3)]
        for text in texts:
            await pod.generate(text)
        named = (await pod.telemetry()).prompts
        kept = await pod.control.GetPrompts(pb.GetPromptsRequest(digest=named.digest))
        assert list(kept.prompts) == texts
        assert kept.digest == named.digest == prompts_digest(texts)
        assert (named.prompts, named.to_request - named.from_request) == (3, 2)

        other = pb.GetPromptsRequest(digest="sha256:other")
        error = await refusal(pod.control.GetPrompts(other))
        assert (error.details() or "").startswith("digest: ")
        await pod.set_limits(live_prompts=0)
        assert (await refusal(pod.control.GetPrompts(pb.GetPromptsRequest()))).code().name == "NOT_FOUND"


async def test_an_alarm_leads_to_prompts_of_the_new_traffic(tiny: Path) -> None:
    far = pb.Baseline(mean=0.0001, standard_deviation=0.0001)
    async with serving(tiny, live_prompts=40) as pod:
        await pod.set_limits(audit=pb.Audit(confidence=far))
        for index in range(30):
            await pod.generate(f"{PROMPT}, number {index}", max_tokens=1)

        now = await pod.telemetry()
        assert now.prompts.from_request > now.alarms[0].since_request
        assert 16 <= now.prompts.prompts < 40


# -- phases


async def test_control_answers_before_the_model_is_loaded(tiny: Path) -> None:
    async with serving(tiny, load=False) as pod:
        now = await pod.telemetry()
        assert (now.ready, now.limits.candidate, now.capacity.layers_loaded) == (False, "tiny", 0)
        assert (await pod.control.GetLimits(pb.GetLimitsRequest())).limits.generation == 1
        assert (await pod.page("/healthz"))[0] == 200
        assert (await pod.page("/readyz")) == (503, "the model is loading\n")
        load = pod.client.stub.GetLoad(generation_pb2.GetLoadRequest(), timeout=0.2)
        assert (await refusal(load)).code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert pod.server is not None
        await pod.server.load()
        later = await pod.telemetry()
        assert (later.ready, later.boot_id) == (True, now.boot_id)
        assert (await pod.page("/readyz")) == (200, "serving\n")


async def test_an_engine_that_failed_fails_its_streams_and_liveness(pod: Served) -> None:
    (answer,) = await streams(pod, 1)
    assert pod.server is not None
    pod.server.pod.loaded_engine().at_boundary(lambda: 1 // 0)  # an error that is nobody's input
    error = await refusal(depths_and_ids([answer]))
    assert error.code() is grpc.StatusCode.INTERNAL
    await pod.server.watch()
    assert await pod.page("/healthz") == (503, "the engine failed; restart the pod\n")
    assert await health(pod.ports.port, "") == "NOT_SERVING"
    assert (await late(pod)).code() is grpc.StatusCode.UNAVAILABLE


async def health(port: int, service: str) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_health_is_told_on_both_ports(tiny: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    async with serving(tiny, token=token, load=False) as pod:
        for port in (pod.ports.port, pod.ports.control_port):
            assert await health(port, "") == "SERVING"
            assert await health(port, "helios.v1.Generation") == "NOT_SERVING"
        assert pod.server is not None
        await pod.server.load()
        assert await health(pod.ports.port, "helios.v1.Generation") == "SERVING"
        await pod.server.begin_drain()
        assert await health(pod.ports.control_port, "helios.v1.Generation") == "NOT_SERVING"
        assert await health(pod.ports.control_port, "") == "SERVING"


async def test_drain_refuses_new_calls_and_waits_for_the_running(pod: Served) -> None:
    answers = await streams(pod, 2)
    statuses = [status async for status in pod.control.Drain(pb.DrainRequest())]
    assert statuses[0].running == 2
    assert not statuses[0].finished
    assert (statuses[-1].running, statuses[-1].finished) == (0, True)
    _, ids = await depths_and_ids(answers)
    assert [len(tokens) for tokens in ids] == [TOKENS] * 2
    assert (await late(pod)).code() is grpc.StatusCode.UNAVAILABLE
    assert (await pod.page("/readyz"))[0] == 503
    assert (await pod.page("/healthz"))[0] == 200
    now = await pod.telemetry()
    assert (now.draining, now.ready) == (True, False)
    again = [status async for status in pod.control.Drain(pb.DrainRequest())]
    assert [status.finished for status in again] == [True]


async def test_a_drain_that_runs_out_of_time_says_so(pod: Served) -> None:
    answers = await streams(pod, 1)
    statuses = [status async for status in pod.control.Drain(pb.DrainRequest(timeout_seconds=1))]
    if not statuses[-1].finished:
        assert statuses[-1].running == 1
    _, ids = await depths_and_ids(answers)
    assert len(ids[0]) == TOKENS
