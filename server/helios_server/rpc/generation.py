"""helios.v1.Generation: text in, a stream of text out.

Registered by `rpc.server` on the public port. The event loop must not wait for the engine: requests are
handed over, events come back through a `Stream`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Future

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
from helios_server.errors import HeliosError, InvalidRequest, NotFound
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc import messages
from helios_server.rpc.calls import Context
from helios_server.rpc.pod import Pod
from helios_server.rpc.stream import Stream

_LONG_TEXT_CHARACTERS = 2000
"""Longer texts are tokenised on another thread, so that the streams of others do not wait."""


class GenerationService(generation_pb2_grpc.GenerationServicer):
    """Serves what the pod's engine holds."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:
        self._pod.calls += 1
        try:
            await self._generate(request, context)
        except HeliosError as error:
            self._pod.metrics.rejected(error.code)
            raise
        finally:
            self._pod.calls -= 1

    async def _generate(self, request: pb.GenerateRequest, context: Context) -> None:
        engine = self._pod.serving_engine()
        self._end_with(context, engine, ())
        self._check_model(request.model)
        generation, prompt = await self._to_engine(request, engine)
        stream = Stream(self._observer(prompt))
        in_chunks = request.stream if request.HasField("stream") else True
        handed_over = self._pod.hand_over(engine.submit, generation, stream.on_event)
        try:
            await asyncio.wrap_future(handed_over)
            async for event in stream:
                await self._answer(event, context, engine, in_chunks)
        finally:
            if not stream.ended:  # the client went away, or its deadline passed
                self._pod.hand_over(_take_back, engine, handed_over, generation.request_id)

    async def Abort(self, request: pb.AbortRequest, context: Context) -> pb.AbortResponse:
        if not request.request_id:
            raise InvalidRequest("request_id", "is empty", "Give the id of a running request")
        found = await self._pod.ask(self._pod.loaded_engine().abort, request.request_id)
        return pb.AbortResponse(found=found)

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: Context
    ) -> pb.GetModelInfoResponse:
        return messages.model_info(self._pod.loaded_engine().info(), self._pod.model_name)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        return messages.load(self._pod.loaded_engine().load(), self._pod.health.draining)

    # -- one request

    def _check_model(self, model: str) -> None:
        served = self._pod.model_name
        if model and model != served:
            raise NotFound("model", f"{model} is not served here", f"Ask for {served}, or leave it empty")

    async def _to_engine(
        self, request: pb.GenerateRequest, engine: Engine
    ) -> tuple[GenerationRequest, Callable[[], str]]:
        """What the engine takes, and how to come by the prompt's text, should it be kept."""
        sampling = messages.sampling_from_proto(request.sampling_params)
        ids = messages.input_ids(request)
        given = request.text if ids is None else request.tokenized.original_text
        model, read_by = engine.serving.model, ""
        if ids is None:
            ids, read_by = await self._encode(model.tokenizer, request.text), model.tokenizer_digest
        prompt_ids = ids
        generation = GenerationRequest(
            request_id=request.request_id or uuid.uuid4().hex,
            prompt_ids=prompt_ids,
            tokenizer_digest=read_by,
            sampling=sampling,
            depth=request.exit_policy.layer_budget,
            cache_salt=request.cache_salt,
        )
        return generation, lambda: given or model.tokenizer.decode(prompt_ids)

    async def _encode(self, tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
        if len(text) <= _LONG_TEXT_CHARACTERS:
            return tuple(tokenizer.encode(text, add_special=True))
        return tuple(await asyncio.to_thread(tokenizer.encode, text, add_special=True))

    def _observer(self, prompt: Callable[[], str]) -> Callable[[Event, float], None]:
        recorder = self._pod.metrics.request()

        def observe(event: Event, now: float) -> None:
            match event:
                case TokensEvent():
                    recorder.tokens(event, now)
                case FinishedEvent():
                    recorder.finished(event)
                    self._pod.prompts.add(event.ordinal, event.prompt_tokens, prompt)

        return observe

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


def _take_back(engine: Engine, handed_over: Future[str], request_id: str) -> None:
    """Runs behind the submission: a request that was refused may bear the id of another one, which goes
    on."""
    if not handed_over.cancelled() and handed_over.exception() is None:
        engine.abort(request_id)
