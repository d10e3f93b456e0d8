"""Spans of real requests, as a real OTLP receiver hears them; and what turns them on."""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from helios_proto.inference import open_inference_pb2_grpc
from helios_proto.v1 import generation_pb2 as pb
from helios_server import serve
from helios_server.errors import InvalidRequest
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.server import Access
from helios_server.telemetry import tracing
from helios_server.telemetry.tracing import Tracing, open_tracing
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.rpc.oip_door.wire import request
from tests.rpc.pods import EXITS, Served, child, eventually, generate_request, serving, speaking
from tests.sizes import LONG

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SECRET_WORDS = "The vault opens at noon"


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.heard: list[otlp.ExportTraceServiceRequest] = []
        self.port = 0

    async def Export(self, request: Any, context: Any) -> Any:
        self.heard.append(request)
        return otlp.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        scopes = (scope for each in self.heard for of in each.resource_spans for scope in of.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    async def trace(self, root: str, count: int) -> dict[str, Span]:
        """The spans by name, once a root of this name and its children are there."""

        async def there() -> bool:
            return any(span.name == root for span in self.spans) and len(self.spans) >= count

        await eventually(there)
        return {span.name: span for span in self.spans}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector, server = Collector(), grpc.aio.server()
    otlp_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


@asynccontextmanager
async def traced(
    model: Path, monkeypatch: pytest.MonkeyPatch, **pod: Any
) -> AsyncIterator[tuple[Served, Collector]]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with collecting() as collector:
        spans = open_tracing(f"http://127.0.0.1:{collector.port}", "chat", {})
        async with serving(model, tracing=spans, **pod) as served:
            yield served, collector


def attributes(span: Span) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        if kind == "array_value":
            value = [getattr(one, one.WhichOneof("value")) for one in value.values]
        found[each.key] = value
    return found


async def test_a_request_is_a_span_with_queue_prefill_and_decode_below(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(tiny, monkeypatch, layer_budget=EXITS[1]) as (pod, collector):
        asked = generate_request(SECRET_WORDS, request_id="mine")
        call = pod.client.stub.Generate(asked, metadata=(("traceparent", TRACEPARENT),))
        answer = [each async for each in call]
        spans = await collector.trace("text_completion chat", 4)
    root = spans["text_completion chat"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    assert root.kind == Span.SPAN_KIND_SERVER
    assert spans.keys() == {"text_completion chat", "queue", "prefill", "decode"}
    at = root.start_time_unix_nano
    for name in ("queue", "prefill", "decode"):
        assert (spans[name].trace_id, spans[name].parent_span_id) == (root.trace_id, root.span_id)
        assert at == spans[name].start_time_unix_nano <= spans[name].end_time_unix_nano
        at = spans[name].end_time_unix_nano
    assert at == root.end_time_unix_nano
    told = attributes(root)
    tokens = answer[-1].complete.usage
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "helios",
        "gen_ai.request.model": "chat",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.response.id": "mine",
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": tokens.prompt_tokens,
        "gen_ai.usage.output_tokens": 8,
        "helios.layer_budget": EXITS[1],
        "helios.layer_budgets": [EXITS[1]],
        "helios.weight_dtype": "auto",
        "helios.kv_cache_dtype": "auto",
        "helios.batch_size": 1,
        "helios.max_batch_size": 8,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert attributes(spans["decode"])["helios.layer_budget"] == EXITS[1]
    (resource,) = {each.resource.SerializeToString() for of in collector.heard for each in of.resource_spans}
    assert b"helios" in resource


async def test_no_text_of_prompt_or_answer_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced(tiny, monkeypatch) as (pod, collector):
        answer = await pod.generate(SECRET_WORDS, stop=["never said"], max_tokens=20)
        await collector.trace("text_completion chat", 4)
    sent = b"".join(each.SerializeToString() for each in collector.heard)
    assert len(answer.text) > 10
    for text in (SECRET_WORDS, "vault", "never said", answer.text):
        assert text.encode() not in sent


async def test_http_hears_traceparent_too_and_a_malformed_one_begins_a_trace(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(tiny, monkeypatch) as (pod, collector), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{pod.ports.http_port}/v1/completions"
        body = {"model": "chat", "prompt": SECRET_WORDS, "max_tokens": 4, "stream": True}
        for given in (TRACEPARENT, "00-not-a-trace", f"00-{'0' * 32}-{PARENT}-01"):
            async with session.post(url, json=body, headers={"Traceparent": given}) as answer:
                assert answer.status == 200
                await answer.read()
        await collector.trace("text_completion chat", 12)
    roots = [span for span in collector.spans if span.name == "text_completion chat"]
    parents = [span.parent_span_id.hex() for span in roots]
    assert sorted(parents) == ["", "", PARENT]
    assert len({span.trace_id for span in roots}) == 3


async def test_each_request_of_an_inference_stream_belongs_to_the_callers_span(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(tiny, monkeypatch) as (pod, collector):
        address = f"127.0.0.1:{pod.ports.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            call = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter([request(model_name="chat", id="1"), request(model_name="chat", id="2")]),
                metadata=(("traceparent", TRACEPARENT),),
            )
            async for answer in call:
                assert not answer.error_message
        await collector.trace("text_completion chat", 8)
    roots = [span for span in collector.spans if span.name == "text_completion chat"]
    assert [root.parent_span_id.hex() for root in roots] == [PARENT, PARENT]
    assert len({root.span_id for root in roots}) == 2


async def test_a_chat_is_called_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"messages": [{"role": "user", "content": SECRET_WORDS}], "max_tokens": 2}
    async with traced(tiny, monkeypatch) as (pod, collector), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{pod.ports.http_port}/v1/chat/completions"
        async with session.post(url, json=body) as answer:
            told = await answer.json()
        root = (await collector.trace("chat chat", 4))["chat chat"]
    assert attributes(root)["gen_ai.operation.name"] == "chat"
    assert attributes(root)["gen_ai.response.id"] == told["id"]


async def test_a_chat_over_grpc_is_called_one_too(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = pb.ChatInput(messages=[pb.ChatMessage(role="user", content=SECRET_WORDS)])
    async with traced(tiny, monkeypatch) as (pod, collector):
        await pod.generate(chat=chat)
        root = (await collector.trace("chat chat", 4))["chat chat"]
    assert attributes(root)["gen_ai.operation.name"] == "chat"


async def test_a_request_that_is_refused_or_left_is_a_span_as_well(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(tiny, monkeypatch) as (pod, collector):
        with pytest.raises(grpc.aio.AioRpcError):
            await pod.client.generate(
                generate_request(tokenized=pb.TokenizedInput(input_ids=[10**6]))
            ).complete()
        call = pod.client.generate(generate_request(max_tokens=4000))
        await anext(aiter(call))
        call.cancel()
        await collector.trace("decode", 5)
        roots = {attributes(s).get("error.type", ""): s for s in collector.spans if s.name.endswith(" chat")}
    assert roots.keys() == {"INVALID_ARGUMENT", ""}
    assert roots["INVALID_ARGUMENT"].status.code == Status.STATUS_CODE_ERROR
    assert attributes(roots[""])["gen_ai.response.finish_reasons"] == ["abort"]


async def test_a_change_between_two_tokens_shows_in_the_depths(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(tiny, monkeypatch) as (pod, collector):
        call = pod.client.generate(generate_request(max_tokens=4000))
        messages = aiter(call)
        await anext(messages)
        await pod.set_limits(layer_budget=EXITS[1])
        while (await anext(messages)).chunk.depth != EXITS[1]:
            pass
        call.cancel()
        told = attributes((await collector.trace("decode", 4))["decode"])
    assert told["helios.layer_budgets"][-1] == EXITS[1]
    assert len(told["helios.layer_budgets"]) == 2


async def test_the_callers_name_is_told_and_its_token_is_not(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "alice").write_text("alices-token")
    access = Access(callers=CallerTokens(tmp_path))
    metadata = (("authorization", "Bearer alices-token"), ("traceparent", TRACEPARENT))
    async with traced(tiny, monkeypatch, access=access) as (pod, collector):
        async for _ in pod.client.stub.Generate(generate_request(request_id="mine"), metadata=metadata):
            pass
        root = (await collector.trace("text_completion chat", 4))["text_completion chat"]
    told = attributes(root)
    assert (told["helios.caller"], told["gen_ai.response.id"]) == ("alice", "mine")
    assert b"alices-token" not in b"".join(each.SerializeToString() for each in collector.heard)


async def test_a_collector_that_is_away_harms_no_request(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setattr(tracing, "_PATIENCE_SECONDS", 0.1)
    spans = open_tracing("http://127.0.0.1:1", "chat", {})
    async with serving(tiny, tracing=spans) as pod:
        for number in range(6):
            assert len((await pod.generate(request_id=str(number))).output_ids) == 8


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it starts a process")
async def test_a_serving_process_sends_what_it_has_before_it_goes(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # nothing goes by itself
        async with child(tmp_path, "--model", f"file://{tiny}") as process:
            async with speaking(await process.ports()) as pod:
                await eventually(lambda: _serves(pod))
                await pod.generate(SECRET_WORDS)
            process.process.terminate()
            assert (await process.end())[0] == 0
        told = sorted(span.name for span in collector.spans)
        assert told == ["decode", "prefill", "queue", "text_completion tiny"]


async def _serves(pod: Served) -> bool:
    return (await pod.page("/readyz"))[0] == 200


# -- what turns them on --------------------------------------------------------------------------------------

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
    ids=str,
)
def test_the_standard_variables_turn_them_on(
    environment: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _close(made := _opened(environment, monkeypatch))
    assert (made is not None) is on
    assert not caplog.records


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "soon"),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, "zip"),
    ],
    ids=str,
)
def test_what_the_environment_asks_for_in_vain_is_said_and_the_pod_serves(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert _opened(environment, monkeypatch) is None
    (record,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert said in record.getMessage()
    assert "none are sent" in record.getMessage()


@pytest.mark.parametrize(
    "endpoint", ["", "collector:4317", "ftp://c:4317", "http://", "http://c:port", "http://c:4318/v1/traces"]
)
def test_an_endpoint_that_cannot_be_one_is_refused_by_its_name(endpoint: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^otlp-endpoint: .*no address of a collector.*http://HOST:PORT"
    ):
        open_tracing(endpoint, "chat", {})


def test_without_the_library_the_flag_is_refused_and_the_environment_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(InvalidRequest, match=r"^otlp-endpoint: .*not installed.*helios-serve\[otel\]"):
        open_tracing("http://127.0.0.1:1", "chat", {})
    assert _opened({ENDPOINT: "http://127.0.0.1:1"}, monkeypatch) is None
    assert "helios-serve[otel]" in caplog.text


def test_the_service_is_named_by_the_environment_or_helios(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, name in (
        ({}, "helios"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,team=a"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=a"}, "helios"),
    ):
        made = _opened({ENDPOINT: "http://127.0.0.1:1"} | environment, monkeypatch)
        assert made is not None
        assert made._provider.resource.attributes["service.name"] == name
        _close(made)


def test_the_flag_goes_first() -> None:
    arguments = ["--model", "file:///model", "--otlp-endpoint", "http://collector:4317"]
    assert serve.parse(arguments).otlp_endpoint == "http://collector:4317"
    assert serve.parse(arguments[:2]).otlp_endpoint is None


def test_nothing_of_opentelemetry_is_loaded_until_it_is_asked_for() -> None:
    tree = ast.parse(Path(tracing.__file__).read_text())
    loaded = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "opentelemetry" not in " ".join(map(ast.unparse, loaded))


def _opened(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Tracing | None:
    """With these alone of its variables."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", *environment):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_tracing(None, "chat", environment)


def _close(made: Tracing | None) -> None:
    if made:
        made.close()
