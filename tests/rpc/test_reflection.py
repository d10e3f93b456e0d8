"""A client that has no `.proto`: it asks what is served, builds its messages from that, and calls. And
health, for every service by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc
from helios_server import serve
from helios_server.rpc.server import Access

from tests.rpc.pods import PROMPT, Served, serving

HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
GENERATION, CONTROL = "helios.v1.Generation", "helios.v1.Control"
INFERENCE = "inference.GRPCInferenceService"


async def reflect(channel: grpc.aio.Channel, **asked: str) -> Any:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = [
        each async for each in stub.ServerReflectionInfo(iter([pb.ServerReflectionRequest(**asked)]))
    ]
    return answer


async def described(channel: grpc.aio.Channel, service: str, name: str) -> tuple[Any, Any]:
    """An empty request of a method, and the class of its answers, by reflection alone."""
    told = await reflect(channel, file_containing_symbol=service)
    pool = descriptor_pool.DescriptorPool()
    for content in told.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(content))
    method = pool.FindServiceByName(service).FindMethodByName(name)
    return (
        message_factory.GetMessageClass(method.input_type)(),
        message_factory.GetMessageClass(method.output_type),
    )


async def test_a_client_without_the_proto_generates(pod: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel:
        listed = (await reflect(channel, list_services="")).list_services_response.service
        assert {each.name for each in listed} == {GENERATION, INFERENCE, HEALTH, REFLECTION}
        asked, answer = await described(channel, GENERATION, "Generate")
        asked.text, asked.sampling_params.max_tokens, asked.sampling_params.ignore_eos = PROMPT, 4, True
        call = channel.unary_stream(
            f"/{GENERATION}/Generate", lambda message: message.SerializeToString(), answer.FromString
        )
        *_, last = [message async for message in call(asked)]
        assert len(last.complete.output_ids) == 4
        unknown = await reflect(channel, file_containing_symbol="no.such.Thing")
        assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_a_probe_without_the_proto_asks_for_health(tiny: Path) -> None:
    """Check and Watch, as a standard probe calls them, for each service that reflection lists."""
    async with (
        serving(tiny, load=False) as pod,
        grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel,
    ):
        assert pod.server is not None

        async def health(service: str) -> str:
            asked, answer = await described(channel, HEALTH, "Check")
            asked.service = service
            call = channel.unary_unary(
                f"/{HEALTH}/Check", lambda message: message.SerializeToString(), answer.FromString
            )
            told = await call(asked)
            field = told.DESCRIPTOR.fields_by_name["status"]
            return str(field.enum_type.values_by_number[told.status].name)

        async def all_health() -> dict[str, str]:
            listed = (await reflect(channel, list_services="")).list_services_response.service
            return {name: await health(name) for name in ("", *(each.name for each in listed))}

        before = await all_health()
        assert {name for name, status in before.items() if status == "SERVING"} == {"", HEALTH, REFLECTION}
        asked, answer = await described(channel, HEALTH, "Watch")
        asked.service = GENERATION
        watch = channel.unary_stream(
            f"/{HEALTH}/Watch", lambda message: message.SerializeToString(), answer.FromString
        )(asked)
        assert (await watch.read()).status != (after := health_pb2.HealthCheckResponse.SERVING)
        await pod.server.load()
        assert (await watch.read()).status == after
        assert set((await all_health()).values()) == {"SERVING"}
        watch.cancel()


async def test_control_is_described_to_nobody(pod: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.control_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await reflect(channel, list_services="")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_can_be_off(tiny: Path) -> None:
    assert serve.parse(["--model", "file:///m", "--no-reflection"]).reflection is False
    assert serve.parse(["--model", "file:///m"]).reflection is True
    async with (
        serving(tiny, load=False, access=Access(reflection=False)) as pod,
        grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await reflect(channel, list_services="")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=REFLECTION))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_told_and_followed_for_every_service(tiny: Path) -> None:
    """What answers anyway is well from the start; what needs the model, while it is there and none drains."""
    request, answer = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    async with (
        serving(tiny, load=False) as pod,
        grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}") as channel,
    ):
        assert pod.server is not None
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", HEALTH, REFLECTION, CONTROL):
            assert (await stub.Check(request(service=service))).status == answer.SERVING
        for service in (GENERATION, INFERENCE):
            assert (await stub.Check(request(service=service))).status == answer.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(request(service="no.such.Service"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        unknown = stub.Watch(request(service="no.such.Service"))
        assert (await unknown.read()).status == answer.SERVICE_UNKNOWN
        watched = [stub.Watch(request(service=service)) for service in (GENERATION, INFERENCE)]
        assert [(await each.read()).status for each in watched] == [answer.NOT_SERVING] * 2
        await pod.server.load()
        assert [(await each.read()).status for each in watched] == [answer.SERVING] * 2
        await pod.server.begin_drain()
        assert [(await each.read()).status for each in watched] == [answer.NOT_SERVING] * 2
        for each in (unknown, *watched):
            each.cancel()
