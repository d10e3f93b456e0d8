"""The life of a request, whatever door it came through: counted, read, handed over, answered, taken back.

Called by every door, which only translates: its own words into a `GenerationRequest`, events into its own
words. The event loop must not wait for the engine: requests are handed over, events come back through a
`Stream`. It must know of no protocol.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from helios_server.engine.engine import Engine
from helios_server.engine.intake import MAX_SALT, check_length
from helios_server.engine.request import Event, FailedEvent, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.serving import Model
from helios_server.errors import HeliosError, InvalidRequest, NotFound, RequestFailed, SlowReader
from helios_server.models.chat_text import render
from helios_server.models.tokenizer import LONG_TEXT, Tokenizer
from helios_server.rpc.callers import ASK_AGAIN, CALLER
from helios_server.rpc.pod import Pod
from helios_server.rpc.stream import Stream
from helios_server.telemetry.tracing import TEXT, RequestTrace

MAX_ID = 256
"""Characters of a request's id."""
_READERS = ThreadPoolExecutor(4, "helios-reading")
"""What is large takes many times its bytes while it is read: so many are at once, however many come."""
_LARGE_BYTES = 64 << 10
"""Of a message: a larger one is read on another thread, too."""
T = TypeVar("T")
_OK, _CANCELLED = "OK", "CANCELLED"
"""How a request ended that is no refusal: answered, or left by its client."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued."""

    ids: tuple[int, ...]
    """Of the vocabulary."""
    text: Callable[[], str]
    """Asked for should the prompt be kept."""
    tokenizer_digest: str = ""
    """Of the tokenizer that made the ids of a text; empty: the caller did."""


async def reading(size: int, read: Callable[[], T]) -> T:
    """`read()`, where others' streams do not wait for it. size: bytes of what is read."""
    if size <= _LARGE_BYTES:
        return read()
    return await asyncio.get_running_loop().run_in_executor(_READERS, read)


async def of_text(model: Model, text: str, *, add_special: bool = True) -> Prompt:
    """add_special: with what the model puts around a text (a begin token, for most)."""
    ids = await _encode(model.tokenizer, text, add_special)
    return Prompt(ids, lambda: text, model.tokenizer_digest)


async def of_chat(model: Model, messages: Sequence[Mapping[str, str]], field: str = "messages") -> Prompt:
    """What the model's own template makes of messages (role, content, and name where it is given). Raises
    NoTemplate, and InvalidRequest for a chat that the template refuses; both name `field`."""
    text = await asyncio.to_thread(render, model.tokenizer.chat, messages, field)
    return await of_text(model, text, add_special=False)


def of_ids(model: Model, ids: tuple[int, ...], text: str = "") -> Prompt:
    """text: what the ids stand for, where the caller says so."""
    return Prompt(ids, lambda: text or model.tokenizer.decode(ids))


async def _encode(tokenizer: Tokenizer, text: str, add_special: bool) -> tuple[int, ...]:
    """Long texts on another thread, so that the streams of others do not wait."""

    def encode() -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special=add_special))

    if LONG_TEXT < len(text) <= _LARGE_BYTES:
        return await asyncio.to_thread(encode)
    return await reading(len(text), encode)


@contextmanager
def counted(pod: Pod) -> Iterator[None]:
    """A drain waits for the end of what is inside; the metrics hear of it, of a caller by name."""
    pod.calls += 1
    code = _CANCELLED
    try:
        yield
        code = _OK
    except HeliosError as error:
        code = error.code
        pod.metrics.rejected(code)
        raise
    except Exception:
        code = RequestFailed.code
        raise
    finally:
        pod.calls -= 1
        if caller := CALLER.get():
            pod.metrics.called(caller, code)


def check_caller() -> None:
    """Before each request of a call that brings many: raises Unauthenticated once its token is revoked."""
    ASK_AGAIN.get()()


def check_model(pod: Pod, model: str) -> None:
    """Raises NotFound for a name that is not served here; "" is whatever is."""
    if model and model != pod.model_name:
        raise NotFound("model", f"{model} is not served here", f"Ask for {pod.model_name}, or leave it empty")


def check_id(field: str, given: str) -> None:
    """Raises InvalidRequest for one that nobody could tell from others: it is kept, and said again."""
    if len(given) > MAX_ID:
        raise InvalidRequest(field, f"has {len(given)} characters", f"Give at most {MAX_ID}")


def owned(request_id: str) -> str:
    """An id of a request, as the engine knows it: where callers have names, nobody ends another's request, or
    meets its id. Raises InvalidRequest."""
    check_id("request_id", request_id)
    caller = CALLER.get()
    return f"{caller}/{request_id}" if caller else request_id


def salted(given: str) -> str:
    """What a caller's prompts are found under: where callers have names, nobody finds what another's
    computed, whatever salt is given."""
    caller = CALLER.get()
    if not caller or len(given) > MAX_SALT:  # that is refused by the engine, in its own words
        return given
    return hashlib.blake2b(f"{caller}\0{given}".encode("utf-8", "surrogatepass")).hexdigest()


@asynccontextmanager
async def answered(
    pod: Pod, engine: Engine, request: GenerationRequest, prompt: Prompt, operation: str = TEXT
) -> AsyncIterator[Stream]:
    """The events of a request that the engine has taken. Raises what `Engine.submit` refuses.

    Whoever leaves before the last event takes the request back: its client went away, or its deadline passed.
    So does SlowReader, which is raised over whatever waits for a client that does not read. operation: what
    spans call it.
    """
    caller, tracing = CALLER.get(), pod.tracing
    trace = tracing.request(request, operation, caller, engine.load) if tracing else None
    loop = asyncio.get_running_loop()
    stream = Stream(pod.mailbox, _observer(pod, prompt, trace), lambda: patience.reschedule(loop.time()))
    try:
        async with asyncio.timeout(None) as patience:
            check_length(
                len(request.prompt_ids), engine.serving
            )  # none that is too long waits for the engine
            handed_over = pod.hand_over(engine.submit, request, stream.on_event)
            try:
                await asyncio.wrap_future(handed_over)
                yield stream
            finally:
                stream.leave()
                if not stream.ended:
                    pod.hand_over(_take_back, engine, handed_over, request.request_id)
    except HeliosError as error:
        if trace:
            trace.failed(error.code)
        raise
    except TimeoutError:
        if not stream.overran:
            raise
        problem = f"{stream.most_unread} tokens have come that the client did not read"
        raise SlowReader("client", problem, "Read the answer as it comes, or ask for a shorter one") from None


def _observer(pod: Pod, prompt: Prompt, trace: RequestTrace | None) -> Callable[[Event, float], None]:
    recorder = pod.metrics.request(CALLER.get())

    def observe(event: Event, now: float) -> None:
        match event:
            case TokensEvent():
                recorder.tokens(event, now)
            case FinishedEvent():
                recorder.finished(event)
                pod.prompts.add(event.ordinal, event.prompt_tokens, prompt.text)
                if pod.request_log:
                    pod.request_log.finished(event)
        if trace:
            _trace(trace, event)

    return observe


def _trace(trace: RequestTrace, event: Event) -> None:
    match event:
        case TokensEvent():
            trace.tokens(event)
        case FinishedEvent():
            trace.finished(event)
        case FailedEvent():
            trace.failed(event.error.code)


def _take_back(engine: Engine, handed_over: Future[str], request_id: str) -> None:
    """Runs behind the submission: a request that was refused may bear the id of another one, which goes
    on."""
    if not handed_over.cancelled() and handed_over.exception() is None:
        engine.abort(request_id)
