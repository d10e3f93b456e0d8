"""Callers in a closed loop: each sends a prompt, reads the stream to its end, and sends the next.

Used by the demo and by the benches. It counts what came back, token by token, for whoever asks; it
decides nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import Chunk, GenerateRequest, SamplingParams


@dataclass(frozen=True)
class Stream:
    """One request that ended. Times are monotonic seconds: when it was sent, when its first token came
    (infinite: never) and when it ended; `error` is "" for an answer that came to its end.
    """

    domain: str
    prompt: str
    text: str
    output_ids: tuple[int, ...]
    spans: tuple[dict[str, Any], ...]
    sent: float
    began: float
    ended: float
    error: str = ""


@dataclass
class Ledger:
    """What the callers saw so far."""

    streams: list[Stream] = field(default_factory=list)
    tokens: int = 0
    text: str = ""
    """Of the stream that is being shown on the screen."""

    @property
    def ok(self) -> int:
        return sum(not stream.error for stream in self.streams)

    @property
    def failed(self) -> int:
        return sum(bool(stream.error) for stream in self.streams)


class Traffic:
    """`callers` concurrent callers at `address`, sending prompts of one domain at a time until `stop`."""

    def __init__(
        self, address: str, *, callers: int, osl: int, on_text: Callable[[str], None] | None = None
    ) -> None:
        self._address = address
        self._callers = callers
        self._osl = osl
        self._on_text = on_text
        self.ledger = Ledger()

    @asynccontextmanager
    async def flowing(self, domain: str, prompts: Sequence[str]) -> AsyncIterator[Ledger]:
        """Inside the block the callers send; on leaving it no new request begins and all running ones end."""
        source = itertools.cycle(prompts)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(self._callers):
                group.create_task(self._call_in_a_loop(domain, source, stopping, shown=number == 0))
            try:
                yield self.ledger
            finally:
                stopping.set()

    async def _call_in_a_loop(
        self, domain: str, prompts: itertools.cycle[str], stopping: asyncio.Event, *, shown: bool
    ) -> None:
        async with GenerationClient(self._address) as client:
            while not stopping.is_set():
                self.ledger.streams.append(await self._one(client, domain, next(prompts), shown=shown))

    async def _one(self, client: GenerationClient, domain: str, prompt: str, *, shown: bool) -> Stream:
        def heard(chunk: Chunk) -> None:
            self.ledger.tokens += len(chunk.token_ids)
            if shown and self._on_text:
                self._on_text(chunk.text)

        return await ask(client, domain, prompt, osl=self._osl, heard=heard)


async def ask(
    client: GenerationClient,
    domain: str,
    prompt: str,
    *,
    osl: int,
    heard: Callable[[Chunk], None] = lambda _: None,
    timeout: float = 300,
) -> Stream:
    """One request, to its end: `osl` new tokens, whatever they are, or an error, told by the stream.
    timeout: seconds."""
    request = GenerateRequest(
        text=prompt,
        sampling_params=SamplingParams(max_tokens=osl, ignore_eos=True),
        cache_salt=uuid.uuid4().hex,  # a prompt that comes again is computed like a fresh one
    )
    sent, began, text, error = time.monotonic(), math.inf, "", ""
    ids: tuple[int, ...] = ()
    spans: tuple[dict[str, Any], ...] = ()
    answer = client.generate(request, timeout=timeout)
    try:
        async for message in answer:
            if message.HasField("chunk"):
                began = min(began, time.monotonic())
                heard(message.chunk)
            else:
                text, ids = message.complete.text, tuple(message.complete.output_ids)
        spans = tuple(await answer.spans())
    except grpc.aio.AioRpcError as failure:
        error = f"{failure.code().name}: {failure.details()}"
    return Stream(domain, prompt, text, ids, spans, sent, began, time.monotonic(), error)
