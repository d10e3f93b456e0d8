"""inference.GRPCInferenceService: what is asked of the server and the model, and one text continued.

Registered by `rpc.server` on the public port. It translates; what becomes of a request stands in
`rpc.conversation`, and of a stream of them in `many`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from helios_proto.inference import open_inference_pb2 as pb
from helios_proto.inference import open_inference_pb2_grpc

from helios_server.engine.engine import Engine
from helios_server.engine.request import FailedEvent, FinishedEvent, GenerationRequest, Span, TokensEvent
from helios_server.errors import HeliosError, InvalidRequest
from helios_server.rpc import conversation, messages
from helios_server.rpc.calls import Context, Handler
from helios_server.rpc.oip import described, requests
from helios_server.rpc.oip.answers import Answer, on_stream
from helios_server.rpc.oip.given import Given, outputs
from helios_server.rpc.oip.many import Many, Write
from helios_server.rpc.oip.requests import Asked
from helios_server.rpc.pod import Pod
from helios_server.rpc.stream import Stream

_SERVICE = f"/{pb.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}/"


class NotDone(HeliosError):
    """A call of Triton's that asks for what there is not here."""

    code = "UNIMPLEMENTED"


class InferenceService(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves what the pod's engine holds, as the one version of one model."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    # -- what there is

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=self._pod.health.alive)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._pod.health.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        self._check(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._pod.health.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return described.server()

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        self._check(request.name, request.version)
        return described.model(self._pod.model_name)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        self._check(request.name, request.version)
        info = self._pod.loaded_engine().info()
        return pb.ModelConfigResponse(config=described.config(self._pod.model_name, info))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        self._check(request.name, request.version)
        stats = described.statistics(self._pod.model_name, self._pod.metrics)
        return pb.ModelStatisticsResponse(model_stats=[stats])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        if request.repository_name:
            problem = f"{request.repository_name} is not here"
            raise InvalidRequest("repository_name", problem, "Leave it empty: there is one repository")
        index = described.index(self._pod.model_name, self._pod.health)
        ready = index.state == described.READY
        return pb.RepositoryIndexResponse(models=[index] if ready or not request.ready else [])

    def _check(self, name: str, version: str) -> None:
        with requests.in_words_of({"model_name": "name", "model_version": "version"}):
            requests.check_model(self._pod, name, version)

    # -- one text continued

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        with conversation.counted(self._pod):
            engine = self._pod.serving_engine()
            self._end_with(context, engine, ())
            async with self._conversed(engine, request, streaming=False) as (events, answer, _):
                tokens: list[TokensEvent] = []
                async for event in events:
                    match event:
                        case TokensEvent():
                            tokens.append(event)
                        case FinishedEvent():
                            self._end_with(context, engine, event.spans)
                            return answer.whole(event, tokens)
                        case FailedEvent():
                            self._end_with(context, engine, event.spans)
                            raise event.error
        raise RuntimeError("a request's events ended without a last one")

    async def ModelStreamInfer(self, given: AsyncIterator[pb.ModelInferRequest], context: Context) -> None:
        if self._pod.engine is not None:
            self._end_with(context, self._pod.engine, ())
        await Many(self._pod.model_name, self._pod.health, context.write, self._answer).run(given)

    async def _answer(self, request: pb.ModelInferRequest, write: Write) -> None:
        """One request of a stream."""
        with conversation.counted(self._pod), self._pod.bodies.whole(request.ByteSize()):
            conversation.check_caller()
            engine = self._pod.serving_engine()
            async with self._conversed(engine, request, streaming=True) as (events, answer, asked):
                tokens: list[TokensEvent] = []
                async for event in events:
                    match event:
                        case TokensEvent() if asked.stream:
                            await write(on_stream(answer.chunk(event), final=False))
                        case TokensEvent():
                            tokens.append(event)
                        case FinishedEvent():
                            last = answer.last(event) if asked.stream else answer.whole(event, tokens)
                            await write(on_stream(last, final=not asked.empty_final))
                        case FailedEvent():
                            raise event.error
                if asked.empty_final:
                    await write(on_stream(answer.empty(), final=True))

    @asynccontextmanager
    async def _conversed(
        self, engine: Engine, request: pb.ModelInferRequest, streaming: bool
    ) -> AsyncIterator[tuple[Stream, Answer, Asked]]:
        """The events of a request, and what makes answers of them. Raises in the request's words."""
        conversation.check_id("id", request.id)
        given = await conversation.reading(request.ByteSize(), lambda: Given(request))
        model = engine.serving.model
        with requests.in_words_of(given.words):
            requests.check_model(self._pod, request.model_name, request.model_version)
            asked = requests.read(
                given.values, outputs(request), streaming, raw=bool(request.raw_input_contents)
            )
            prompt = await conversation.of_text(model, asked.text)
            generation = GenerationRequest(
                request_id=conversation.owned(f"infer-{uuid.uuid4().hex}"),
                prompt_ids=prompt.ids,
                tokenizer_digest=prompt.tokenizer_digest,
                sampling=asked.sampling_for(model),
                depth=asked.depth,
                cache_salt=conversation.salted(asked.cache_salt),
            )
            answer = Answer(request.id, self._pod.model_name, asked, len(prompt.ids), model.tokenizer)
            async with conversation.answered(self._pod, engine, generation, prompt) as events:
                yield events, answer, asked

    def _end_with(self, context: Context, engine: Engine, spans: tuple[Span, ...]) -> None:
        context.set_trailing_metadata(messages.trailing(self._pod.model_name, engine.info(), spans))


class OtherCalls(grpc.GenericRpcHandler):
    """Whatever else is called by the service's name: registered behind the service itself."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        _, ours, call = handler_call_details.method.partition(_SERVICE)
        if not ours:
            return None

        async def refuse(request: object, context: Context) -> None:
            fix = "Leave it out: tensors go in messages, and the operator loads the model"
            raise NotDone(call, "is not served here", fix)

        return grpc.unary_unary_rpc_method_handler(refuse)
