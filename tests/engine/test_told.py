"""What the engine tells is at hand at once, whatever it is at; and it tells what it is at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from helios_server.engine import changes
from helios_server.engine.engine import Engine
from helios_server.engine.pulse import Activity, Pulse, Work
from helios_server.engine.request import FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams

from tests.engine.helpers import WAIT_SECONDS, limits_for, prompt_of, running, send
from tests.engine.test_audit import wait_for

LONG = {"max_tokens": 120, "ignore_eos": True}


class Gate:
    """A call that does not come back before it is opened."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> None:
        self.entered.set()
        assert self._open.wait(WAIT_SECONDS)

    def open(self) -> None:
        self._open.set()

    def hold(self, engine: Engine) -> None:
        """Between two steps, with submission held off."""
        engine.at_boundary(self)
        assert self.entered.wait(WAIT_SECONDS)


def test_everything_is_told_while_a_task_holds_the_engine(tiny: Path) -> None:
    gate = Gate()
    with running(tiny, exit_layers=(2, 4), max_batch_size=2) as engine, ThreadPoolExecutor(1) as others:
        streams = [send(engine, prompt_of(20, i), **LONG) for i in range(4)]
        streams[0].wait_for(3)
        gate.hold(engine)
        submitted = others.submit(send, engine, prompt_of(9), max_tokens=3)
        assert engine.info().total_layers == 6
        load, told = engine.load(), engine.telemetry()
        assert (load.running, load.waiting) == (engine.running, engine.waiting) == (2, 2)
        assert (told.running, told.waiting) == (2, 2)
        assert told.generation_tokens >= 3
        assert engine.telemetry().uptime_seconds > told.uptime_seconds
        assert not engine.telemetry().draining
        engine.begin_drain()
        assert engine.load().draining
        assert engine.telemetry().draining
        assert engine.failed is None
        assert not submitted.done()  # it may wait: the loop does not
        gate.open()
        for stream in streams:
            stream.result()


def test_others_submit_while_a_text_is_made(tiny: Path) -> None:
    gate = Gate()
    with running(tiny) as engine, ThreadPoolExecutor(1) as others:
        stream = send(engine, prompt_of(20), **LONG)
        text = engine._answers[stream.request_id]._stream
        push = text.push

        def slowly(token_id: int) -> str:
            gate()
            return push(token_id)

        text.push = slowly  # type: ignore[method-assign]
        assert gate.entered.wait(WAIT_SECONDS)
        late = others.submit(send, engine, prompt_of(9), max_tokens=3).result(WAIT_SECONDS)
        gate.open()
        assert len(stream.result().output_ids) == 120
        assert len(late.result().output_ids) == 3


def test_what_was_told_never_changes(tiny: Path) -> None:
    with running(tiny) as engine:
        before = engine.load(), engine.telemetry(), engine.info()
        kept = replace(before[1])
        for value in before:
            with pytest.raises(FrozenInstanceError):
                value.max_batch_size = 7  # type: ignore[misc,union-attr]
        send(engine, prompt_of(20), **LONG).result()
        assert before[1] == kept
        assert before[1].requests_finished == 0
        assert engine.telemetry().requests_finished == 1


def test_nobody_hears_of_what_cannot_be_read_yet(tiny: Path) -> None:
    """Whoever is called with a first token or an end finds it counted; with another, what was at most 20 ms
    before, and never less than at the token before it."""
    seen: list[bool] = []
    counted = 0
    with running(tiny) as engine:
        done = threading.Event()

        def look(event: object) -> None:
            nonlocal counted
            told = engine.telemetry()
            before, counted = counted, told.generation_tokens
            if isinstance(event, TokensEvent):
                ends = event.index == 119
                seen.append(told.running == (not ends) and counted >= (120 if ends else max(1, before)))
            elif isinstance(event, FinishedEvent):
                seen.append((told.requests_finished, told.running) == (1, 0))
                done.set()

        engine.submit(GenerationRequest("r", prompt_of(20), SamplingParams(**LONG)), look)  # type: ignore[arg-type]
        assert engine.load().waiting + engine.load().running == 1
        assert done.wait(WAIT_SECONDS)
        limits = replace(engine.telemetry().limits, generation=2, max_batch_size=1)
        generations: list[int] = []
        future = engine.set_limits(limits)
        future.add_done_callback(lambda _: generations.append(engine.telemetry().limits.generation))
        future.result(60)
        wait_for(lambda: generations == [2])
    assert all(seen)
    assert len(seen) == 121


def test_a_listener_that_breaks_keeps_no_other_waiting(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("Event loop is closed")

    with running(tiny) as engine:
        engine.submit(GenerationRequest("r", prompt_of(20), SamplingParams(max_tokens=3)), broken)
        assert len(send(engine, prompt_of(20), **LONG).result().output_ids) == 120
        assert engine.failed is None
    assert "Event loop is closed" in caplog.text


# -- signs of life -------------------------------------------------------------------------------------------


def of(work: Work, engine: Engine) -> float:
    return max((found.seconds for found in engine.activities() if found.work is work), default=-1.0)


def test_an_idle_engine_is_at_nothing(tiny: Path) -> None:
    with running(tiny) as engine:
        wait_for(lambda: not engine.activities())
        send(engine, prompt_of(20), **LONG).result()
        wait_for(lambda: not engine.activities())
        assert engine.seconds_since_step == 0


def test_a_step_that_hangs_ages(tiny: Path) -> None:
    gate = Gate()
    with running(tiny) as engine:
        engine.serving.weights.run = gate  # type: ignore[method-assign, assignment]
        send(engine, prompt_of(20), **LONG)
        assert gate.entered.wait(WAIT_SECONDS)
        first = engine.seconds_since_step
        wait_for(lambda: engine.seconds_since_step > first + 0.2)
        send(engine, prompt_of(21), **LONG)  # a newcomer is no sign of life
        assert of(Work.STEP, engine) > first + 0.2
        gate.open()


def test_a_task_that_hangs_is_told_as_a_task(tiny: Path) -> None:
    gate = Gate()
    with running(tiny) as engine:
        stream = send(engine, prompt_of(20), **LONG)
        stream.wait_for(3)
        gate.hold(engine)
        wait_for(lambda: of(Work.TASK, engine) > 0.2)
        assert of(Work.STEP, engine) == -1
        gate.open()
        stream.result()


def test_a_deadlock_ages(tiny: Path) -> None:
    """The engine's thread waits for a lock that nobody gives back."""
    with running(tiny) as engine:
        send(engine, prompt_of(20), **LONG).wait_for(3)
        with engine._lock:
            wait_for(lambda: engine.seconds_since_step > 0.2)


def test_a_model_being_loaded_is_told_as_a_change(
    tiny: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = Gate(), changes.load_model

    def slowly(*args: Any) -> Any:
        gate()
        return real(*args)

    monkeypatch.setattr(changes, "load_model", slowly)
    with running(tiny) as engine:
        stream = send(engine, prompt_of(20), **LONG)
        stream.wait_for(3)
        future = engine.set_limits(replace(limits_for(other), generation=2))
        assert gate.entered.wait(WAIT_SECONDS)
        wait_for(lambda: [found.work for found in engine.activities()] == [Work.CHANGE])
        wait_for(lambda: of(Work.CHANGE, engine) > 0.2)
        assert engine.seconds_since_step == 0
        gate.open()
        future.result(60)
        assert of(Work.CHANGE, engine) == -1
        stream.result()


def test_requests_that_nobody_works_on_age_although_the_thread_sleeps() -> None:
    pulse = Pulse(0)
    told: Callable[..., list[Activity]] = pulse.activities
    assert told(100, waited_for=False, change=None, ended=0) == []
    pulse.progressed = 100  # the first request came
    assert told(130, waited_for=True, change=None, ended=0) == [Activity(Work.STEP, 30)]
    assert told(130, waited_for=True, change=90, ended=0) == [Activity(Work.CHANGE, 40)]
    assert told(130, waited_for=True, change=None, ended=125) == [Activity(Work.STEP, 5)]


def test_requests_are_not_blamed_for_what_a_task_took() -> None:
    pulse = Pulse(0)
    pulse.beat(Work.TASK, 10)
    assert pulse.activities(500, waited_for=True, change=None, ended=0) == [Activity(Work.TASK, 490)]
    pulse.beat(Work.STEP, 500)
    assert [found.seconds for found in pulse.activities(501, waited_for=True, change=None, ended=0)] == [
        1,
        11,
    ]
