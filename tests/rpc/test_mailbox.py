"""What the engine's thread hands over to the loop: one wake for all of it, and nobody else kept waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helios_server.engine.request import Event, TokensEvent
from helios_server.rpc import loop_lag, stream
from helios_server.rpc.stream import Mailbox, Stream
from helios_server.telemetry.metrics import Metrics


def token(index: int, name: str = "a") -> TokensEvent:
    return TokensEvent(name, index, (7,), "", (), (0.5,), (False,), 2)


def heard_by(stream_of: Mailbox) -> tuple[Stream, list[int]]:
    heard: list[int] = []

    def observe(event: Event, now: float) -> None:
        assert isinstance(event, TokensEvent)
        heard.append(event.index)

    return Stream(stream_of, observe), heard


async def test_all_that_comes_before_the_loop_looks_wakes_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, wakes = asyncio.get_running_loop(), list[Callable[..., object]]()
    wake = loop.call_soon_threadsafe

    def counted(callback: Callable[..., object], *arguments: Any) -> asyncio.Handle:
        wakes.append(callback)
        return wake(callback, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    mailbox = Mailbox()
    readers = [heard_by(mailbox) for _ in range(32)]
    for step in range(3):
        for each, _ in readers:
            each.on_event(token(step))
    while len(readers[-1][1]) < 3:
        await asyncio.sleep(0)
    assert [heard for _, heard in readers] == [[0, 1, 2]] * 32
    assert len(wakes) == 1
    readers[0][0].on_event(token(3))
    while len(readers[0][1]) < 4:
        await asyncio.sleep(0)
    assert len(wakes) == 2


async def test_others_have_their_turn_between_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_AT_ONCE", 10)
    one, heard = heard_by(Mailbox())
    for index in range(35):
        one.on_event(token(index))
    turns = []
    while len(heard) < 35:
        await asyncio.sleep(0)
        turns.append(len(heard))
    assert [each for each in turns if each] == [10, 20, 30, 35]
    assert heard == list(range(35))


async def test_an_observer_that_fails_keeps_nothing_from_the_others() -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    mailbox = Mailbox()

    def fail(event: Event, now: float) -> None:
        raise ValueError("broken")

    broken, (other, heard) = Stream(mailbox, fail), heard_by(mailbox)
    for index in range(3):
        broken.on_event(token(index))
        other.on_event(token(index))
    first = await anext(aiter(broken))  # its caller has its answer
    assert isinstance(first, TokensEvent)
    await asyncio.sleep(0)
    assert heard == [0, 1, 2]
    assert [str(each["exception"]) for each in faults] == ["broken"] * 3


async def test_no_event_is_lost_between_the_threads() -> None:
    """The loop falls asleep at the very moment at which more comes, again and again."""
    one, heard = heard_by(Mailbox())
    number = 20_000
    thread = threading.Thread(target=lambda: [one.on_event(token(index)) for index in range(number)])
    thread.start()
    async with asyncio.timeout(60):
        while len(heard) < number:
            await asyncio.sleep(0)
    thread.join()
    assert heard == list(range(number))


def test_a_loop_that_is_closed_is_said_for_each_event() -> None:
    async def made() -> Stream:
        return Stream(Mailbox())

    late = asyncio.run(made())
    for index in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            late.on_event(token(index))


async def test_each_moment_of_a_wait_is_as_late_as_it_is() -> None:
    """Held up for ten moments that were due, the loop tells of each; idle, of no lateness like that."""
    metrics = Metrics("chat")
    watching = asyncio.create_task(loop_lag.watch(metrics, every=0.02))
    await asyncio.sleep(0)
    threading.Event().wait(0.25)  # the loop's own thread
    await asyncio.sleep(0.01)
    watching.cancel()
    found = metrics.registry.get_sample_value
    name, labels = "helios_event_loop_lag_seconds", {"model_name": "chat"}
    counted, lateness = found(f"{name}_count", labels), found(f"{name}_sum", labels)
    assert counted is not None
    assert counted >= 12
    assert lateness is not None
    assert lateness >= sum(0.02 * index for index in range(12))
