"""What the engine's tests share: an engine on a tiny checkpoint, requests, and the events that answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helios_contract.limits import Audit, Limits
from helios_contract.serves import Bundle
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import Event, FailedEvent, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams

WAIT_SECONDS = 240


@dataclass
class Stream:
    """Collects the events of one request; `result()` waits for the last one."""

    request_id: str
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._grown = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._grown:
            self.events.append(event)
            self._grown.notify_all()
        if not isinstance(event, TokensEvent):
            self._ended.set()

    @property
    def tokens(self) -> list[int]:
        return [token for event in self.events if isinstance(event, TokensEvent) for token in event.token_ids]

    def wait_for(self, tokens: int) -> None:
        """Until that many tokens have come, or the request has ended."""
        with self._grown:
            arrived = self._grown.wait_for(
                lambda: len(self.tokens) >= tokens or self._ended.is_set(), WAIT_SECONDS
            )
        assert arrived, f"{len(self.tokens)} of {tokens} tokens"

    def result(self) -> FinishedEvent:
        event = self.end()
        assert isinstance(event, FinishedEvent), event
        return event

    def end(self) -> FinishedEvent | FailedEvent:
        assert self._ended.wait(WAIT_SECONDS), "the request did not end"
        event = self.events[-1]
        assert not isinstance(event, TokensEvent)
        return event


def limits_for(path: Path, **changes: Any) -> Limits:
    """Limits that leave plenty of room for a tiny checkpoint."""
    base = Limits(
        generation=1, candidate="tiny", model_uri=f"file://{path}", memory_mib=4096, tokens_per_request=64
    )
    return replace(base, **changes)


@contextmanager
def running(path: Path, config: EngineConfig | None = None, **changes: Any) -> Iterator[Engine]:
    """An engine on a checkpoint, stopped at the end."""
    engine = Engine.start(
        config or EngineConfig(dtype="float64", max_context=256), limits_for(path, **changes)
    )
    try:
        yield engine
    finally:
        engine.stop()


_ids = iter(range(1 << 30))


def send(engine: Engine, prompt: tuple[int, ...], depth: int = 0, **sampling: Any) -> Stream:
    """Submits a request."""
    stream = Stream(f"request-{next(_ids)}")
    request = GenerationRequest(stream.request_id, tuple(prompt), SamplingParams(**sampling), depth)
    engine.submit(request, stream)
    return stream


def audit_of(percent: int, *bundles: Bundle) -> Audit:
    return Audit(percent=percent, bundles=bundles)


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    """Token ids without special tokens."""
    return tuple((seed * 31 + index * 17) % 251 for index in range(length))
