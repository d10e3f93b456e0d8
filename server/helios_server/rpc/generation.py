"""helios.v1.Generation: text in, a stream of text out.

Registered by `rpc.server` on the public port. It translates; what becomes of a request stands in
`conversation`.
"""

from __future__ import annotations

import uuid

from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc

from helios_server.engine.engine import Engine
from helios_server.engine.request import (
    Event,
    FailedEvent,
    FinishedEvent,
    GenerationRequest,
    Span,
    TokensEvent,
)
from helios_server.engine.serving import Model
from helios_server.errors import InvalidRequest
from helios_server.rpc import conversation, messages
from helios_server.rpc.calls import Context
from helios_server.rpc.conversation import Prompt
from helios_server.rpc.pod import Pod
from helios_server.telemetry.tracing import CHAT, TEXT


class GenerationService(generation_pb2_grpc.GenerationServicer):
    """Serves what the pod's engine holds."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:
        with conversation.counted(self._pod):
            engine = self._pod.serving_engine()
            self._end_with(context, engine, ())
            conversation.check_model(self._pod, request.model)
            generation, prompt = await self._to_engine(request, engine)
            in_chunks = request.stream if request.HasField("stream") else True
            operation = CHAT if request.HasField("chat") else TEXT
            async with conversation.answered(self._pod, engine, generation, prompt, operation) as events:
                async for event in events:
                    await self._answer(event, context, engine, in_chunks)

    async def Abort(self, request: pb.AbortRequest, context: Context) -> pb.AbortResponse:
        if not request.request_id:
            raise InvalidRequest("request_id", "is empty", "Give the id of a running request")
        engine, request_id = self._pod.loaded_engine(), conversation.owned(request.request_id)
        found = await self._pod.ask(engine.abort, request_id)
        return pb.AbortResponse(found=found)

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: Context
    ) -> pb.GetModelInfoResponse:
        return messages.model_info(self._pod.loaded_engine().info(), self._pod.model_name)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        return messages.load(self._pod.loaded_engine().load(), self._pod.health.draining)

    # -- one request

    async def _to_engine(
        self, request: pb.GenerateRequest, engine: Engine
    ) -> tuple[GenerationRequest, Prompt]:
        sampling = messages.sampling_from_proto(request.sampling_params)
        prompt = await _prompt(request, engine.serving.model)
        generation = GenerationRequest(
            request_id=conversation.owned(request.request_id or uuid.uuid4().hex),
            prompt_ids=prompt.ids,
            tokenizer_digest=prompt.tokenizer_digest,
            sampling=sampling,
            depth=request.exit_policy.layer_budget,
            cache_salt=conversation.salted(request.cache_salt),
        )
        return generation, prompt

    async def _answer(self, event: Event, context: Context, engine: Engine, in_chunks: bool) -> None:
        match event:
            case TokensEvent():
                if in_chunks:
                    await context.write(messages.chunk(event))
            case FinishedEvent():
                self._end_with(context, engine, event.spans)
                await context.write(messages.complete(event, self._pod.model_name, engine.info()))
            case FailedEvent():
                self._end_with(context, engine, event.spans)
                raise event.error

    def _end_with(self, context: Context, engine: Engine, spans: tuple[Span, ...]) -> None:
        context.set_trailing_metadata(messages.trailing(self._pod.model_name, engine.info(), spans))


async def _prompt(request: pb.GenerateRequest, model: Model) -> Prompt:
    if request.HasField("chat"):
        chat = await conversation.reading(request.chat.ByteSize(), lambda: messages.chat(request.chat))
        return await conversation.of_chat(model, chat, messages.CHAT)
    ids = messages.input_ids(request)
    if ids is None:
        return await conversation.of_text(model, request.text)
    return conversation.of_ids(model, ids, request.tokenized.original_text)
