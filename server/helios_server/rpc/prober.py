"""Asks what serves a few of the user's own tasks now and then, beside the traffic and never before it.

Run by `server` while the pod serves. A task is asked as an uncounted request, only while a row is free, and
taken back as soon as anybody waits; it is asked again later. It must not judge by anything but `answers`, nor
act: the engine's detector says when passes fall, decisions are made elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from helios_contract import task_file, tasks
from helios_contract.answers import judge
from helios_contract.limits import TaskProbe
from helios_contract.task_file import WrongTasks
from helios_contract.tasks import Task

from helios_server.engine.engine import Engine
from helios_server.engine.request import FailedEvent, FinishedEvent, FinishReason, GenerationRequest
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError, InvalidRequest
from helios_server.models.task_prompt import ids_of
from helios_server.rpc.pod import Pod
from helios_server.rpc.stream import Stream

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02
"""Between two looks at whether anybody waits."""
_REST_SECONDS = 1.0
"""Between two looks at whether there is something to ask."""


class Prober:
    """file: with the tasks, read again when another digest is asked for; None: nothing is ever asked."""

    def __init__(self, pod: Pod, file: Path | None) -> None:
        self._pod = pod
        self._file = file
        self._read: tuple[str, tuple[Task, ...]] = ("", ())
        self._next = 0
        self._said = ""

    async def run(self) -> None:
        """Until it is cancelled."""
        while self._file is not None:
            engine = self._pod.loaded_engine()
            probe, began = engine.telemetry().limits.task_probe, time.monotonic()
            due = began + _REST_SECONDS
            if probe is not None and (asked := await asyncio.to_thread(self._to_ask, probe)):
                for task in self._some(asked, probe.count):
                    await self._ask(engine, task, probe)
                due = began + probe.every_seconds
            await self._rest(engine, probe, due)

    async def _rest(self, engine: Engine, probe: TaskProbe | None, due: float) -> None:
        """Until then, or until something else is to be asked."""
        while time.monotonic() < due and engine.telemetry().limits.task_probe == probe:
            await asyncio.sleep(min(_REST_SECONDS, max(0.0, due - time.monotonic())))

    # -- which

    def _to_ask(self, probe: TaskProbe) -> tuple[Task, ...]:
        """Those that what serves should pass."""
        try:
            listed = self._tasks(probe.tasks_digest)
            wanted = tasks.passes(probe.passes, len(listed))
        except (OSError, ValueError) as error:
            self._say(f"no task is asked: {error}")
            return ()
        return tuple(task for task, passes in zip(listed, wanted, strict=True) if passes)

    def _tasks(self, digest: str) -> tuple[Task, ...]:
        if self._read[0] != digest and self._file is not None:
            try:
                found = task_file.read(self._file.read_text(encoding="utf-8"), str(self._file))
            except WrongTasks as wrong:
                raise ValueError(str(wrong)) from None
            if tasks.digest(found) != digest:
                raise ValueError(f"{self._file} holds {tasks.digest(found)}, {digest} is to be asked")
            self._read = (digest, found)
        return self._read[1]

    def _some(self, asked: Sequence[Task], count: int) -> list[Task]:
        """In turn, so that after some rounds all were asked."""
        chosen = [asked[(self._next + step) % len(asked)] for step in range(min(count, len(asked)))]
        self._next = (self._next + len(chosen)) % len(asked)
        return chosen

    # -- asking

    async def _ask(self, engine: Engine, task: Task, probe: TaskProbe) -> None:
        """Until it is answered, or it is another time's; one that is refused for what it is, is passed
        over: it says nothing of what serves, and others would wait behind it."""
        while True:
            limits = engine.telemetry().limits
            if limits.task_probe != probe:
                return
            if self._has_room(engine):
                try:
                    answer = await self._answer(engine, task)
                except InvalidRequest as error:
                    self._say(f"task {task.name} is passed over: {error}")
                    return
                if answer is not None:
                    passes = judge(task.expect, answer).passes
                    self._pod.metrics.task_judged(passes)
                    await self._pod.ask(engine.judged, passes, limits.generation)
                    return
            await asyncio.sleep(_REST_SECONDS)

    def _has_room(self, engine: Engine) -> bool:
        load = engine.load()
        is_free = load.waiting == 0 and load.running < load.max_batch_size
        return is_free and self._pod.health.ready and not self._pod.health.draining

    async def _answer(self, engine: Engine, task: Task) -> str | None:
        """None: others came first, or it could not be asked now. What cannot be answered at all is no
        answer, which passes nothing. Raises InvalidRequest for what may not be asked here."""
        stream, request_id = Stream(self._pod.mailbox), f"task-{uuid.uuid4().hex}"
        tokenizer = engine.serving.model.tokenizer
        try:
            ids = await asyncio.to_thread(ids_of, tokenizer, task, f"task {task.name}")
            sampling = SamplingParams(max_tokens=task.max_tokens)
            request = GenerationRequest(request_id, ids, sampling, counted=False)
            await self._pod.ask(engine.submit, request, stream.on_event)
        except InvalidRequest:
            raise
        except HeliosError as error:
            self._say(f"task {task.name} is not asked: {error}")
            return None
        runs = asyncio.Event()
        watching = asyncio.create_task(self._give_way(engine, request_id, runs))
        try:
            async for event in stream:
                runs.set()
                if isinstance(event, FinishedEvent):
                    return None if event.reason is FinishReason.ABORT else event.text
                if isinstance(event, FailedEvent):
                    return None if isinstance(event.error, HeliosError) and engine.failed else ""
        finally:
            watching.cancel()
            if not stream.ended:
                self._pod.hand_over(engine.abort, request_id)
        return None

    async def _give_way(self, engine: Engine, request_id: str, runs: asyncio.Event) -> None:
        """As soon as somebody else waits: until its own first token, one of those that wait is the task."""
        while engine.waiting <= (0 if runs.is_set() else 1):
            await asyncio.sleep(_LOOK_SECONDS)
        await self._pod.ask(engine.abort, request_id)

    def _say(self, problem: str) -> None:
        """Once, as long as it stays."""
        if problem != self._said:
            logger.warning("%s", problem)
            self._said = problem
