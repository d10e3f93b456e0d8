"""The engine: a thread that turns requests into tokens, one planned step at a time.

Used by the doors (`rpc/`) and by tests. The public methods may be called from any thread; what begins with
`_` runs in the engine's own, unless it says otherwise. Only `submit`, `abort` and `at_boundary` wait for the
lock, which tasks between steps hold; what others read is swapped whole. It must know nothing of protocols,
sockets or asyncio.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

import torch
from helios_contract.limits import Limits
from helios_contract.telemetry import AuditRow

from helios_server.engine.answer import Answer, NewToken
from helios_server.engine.audit import Auditor
from helios_server.engine.changes import Changes
from helios_server.engine.intake import check_queue, sequence_for
from helios_server.engine.limits import EngineConfig, LimitsOutcome
from helios_server.engine.news import News
from helios_server.engine.pulse import Pulse, Work
from helios_server.engine.request import FinishReason, GenerationRequest, OnEvent
from helios_server.engine.runner import StepResult
from helios_server.engine.scheduler import StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.engine.serving import Serving, load_model
from helios_server.engine.shown import Shown
from helios_server.engine.snapshots import Told, told
from helios_server.engine.stats import Stats
from helios_server.engine.tasks import Tasks
from helios_server.engine.watch import Watch
from helios_server.errors import Draining, EngineFailed, HeliosError, InvalidRequest, RequestFailed

T = TypeVar("T")
logger = logging.getLogger(__name__)
_RETRY_SECONDS = 0.02  # between two tries of a boundary task that has to wait, while nothing runs
_PICTURE_SECONDS = 0.02  # so old may a picture be while requests only go on: it would be much of a short step


class Engine(Shown):
    """Build it with `Engine.start`; end it with `stop`. What it tells is in `Shown`."""

    def __init__(self, config: EngineConfig, serving: Serving) -> None:
        self.serving = serving
        self._config = config
        self._answers: dict[str, Answer] = {}
        self._stats = Stats()
        self._wake = threading.Event()
        self._auditor = Auditor(self._audited, self._wake.set)
        self._follow()
        self._watch = Watch(serving.exit_in_use)
        self._watch.probe(serving.limits.task_probe)
        self._changes = Changes(self)
        self._news = News()
        self._tasks = Tasks(self._news)
        self._lock = threading.RLock()  # answers, statistics, and what decides whether a request is taken
        self._boot_id = uuid.uuid4().hex
        self._started = time.monotonic()
        self._ordinal = 0
        self._draining = False
        self._closed = ""
        self._stopping = False
        self._failed: HeliosError | None = None
        self._thread = threading.current_thread()
        self._pulse = Pulse(self._started)
        self._told, self._picture_due = self._look(None), 0.0  # 0: after the next step

    @classmethod
    def start(cls, config: EngineConfig, limits: Limits) -> Engine:
        """Loads model and heads, plans memory and starts the thread.

        Raises HeliosError and leaves nothing behind.
        """
        started: Future[Engine] = Future()
        thread = threading.Thread(
            target=_live, args=(config, limits, started), name="helios-engine", daemon=True
        )
        thread.start()
        return started.result()

    # -- requests --------------------------------------------------------------------------------------------

    def submit(self, request: GenerationRequest, on_event: OnEvent) -> str:
        """Queues a request; its events arrive in the engine thread.

        Raises what `intake` and the queue refuse.
        """
        with self._lock:
            self._check_open(request)
            ordinal = self._ordinal + 1 if request.counted else 0
            sequence = sequence_for(request, self.serving, ordinal)
            self._check_queue(len(request.prompt_ids))
            self._ordinal += request.counted
            if not self._answers:
                self._pulse.progressed = time.monotonic()
            stream = self.serving.model.tokenizer.stream(prompt_ids=request.prompt_ids)
            later = self._news.of(on_event, lambda error: self._fail_alone(answer, RequestFailed.of(error)))
            answer = Answer(request, sequence, stream, later, time.monotonic())
            self._answers[request.request_id] = answer
            self._told = self._told.accepted(len(self._answers))
            self._post(lambda: self.serving.scheduler.add(sequence))
        return request.request_id

    def abort(self, request_id: str) -> bool:
        """Ends a request at the next step; it finishes with reason ABORT. False: no such request."""
        with self._lock:
            found = request_id in self._answers
            if found:
                self._post(lambda: self._abort(request_id))
        return found

    def _check_open(self, request: GenerationRequest) -> None:
        if self._failed:
            raise self._failed
        if self._draining or self._stopping:
            raise Draining("server", "is draining", "Send the request to another server")
        if self._closed:
            raise Draining("server", self._closed, "Try again in a few seconds")
        if request.request_id in self._answers:
            raise InvalidRequest("request_id", f"'{request.request_id}' is already running", "Use another id")

    def _check_queue(self, prompt_tokens: int) -> None:
        """Those who came first have the rows; the others wait."""
        rows = self.serving.scheduler.max_rows
        waiting = [len(each.request.prompt_ids) for each in islice(self._answers.values(), rows, None)]
        seconds = max(1.0, self._stats.seconds_per_request * len(waiting) / rows)
        check_queue(waiting, prompt_tokens, self.serving, self._config.max_queue_tokens, seconds)

    # -- limits and life -------------------------------------------------------------------------------------

    def set_limits(self, limits: Limits, if_generation: int | None = None) -> Future[LimitsOutcome]:
        """Changes what serves, at a step boundary.

        The future fails with a HeliosError; then nothing has changed.
        """
        return self._changes.submit(limits, if_generation)

    def judged(self, passes: bool, generation: int) -> None:
        """Any thread: of a task that should pass, asked under the limits of that generation."""
        self._post(lambda: self._judge(passes, generation))

    def _judge(self, passes: bool, generation: int) -> None:
        if self.serving.limits.generation == generation:
            self._watch.task(passes, time.time())

    def begin_drain(self) -> None:
        """Takes no more requests; those that run or wait go on."""
        self._draining = True

    @property
    def failed(self) -> HeliosError | None:
        """Why the engine cannot go on, if it cannot."""
        return self._failed

    def stop(self) -> None:
        """Ends the thread after the step under way. Requests that have not ended fail."""
        self._stopping = True
        self._changes.close()
        self._wake.set()
        self._thread.join()

    # -- what is told ----------------------------------------------------------------------------------------

    def _look(self, before: Told | None) -> Told:
        """A picture of now. Under the lock, or before the thread runs."""
        return told(self._boot_id, self.serving, self._stats, self._watch, len(self._answers), before)

    def _tell(self) -> None:
        """Swaps what others read, then calls those who wait: nobody hears of what cannot be read yet."""
        with self._lock:
            self._told, self._picture_due = self._look(self._told), time.monotonic() + _PICTURE_SECONDS
        self._news.tell()

    # -- the thread ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """One step: what happens between steps, then the rows that the scheduler planned.

        False: nothing to do.
        """
        self._run_tasks()
        began = time.monotonic()
        self._pulse.beat(Work.STEP, began)
        self.serving.awaits_audits = self._auditor.hasty = self._watch.awaits_audits
        plan = self.serving.scheduler.plan()
        self._count_plan(plan, began)
        if plan.rows:
            self._apply(plan, self.serving.weights.run(plan, self._auditor.captures), began)
            self._pulse.progressed = now = time.monotonic()
            (self._tell if now >= self._picture_due else self._news.tell)()
        self._pulse.beat(Work.STEP, time.monotonic())
        audited = self._audit()
        return bool(plan.rows) or audited

    def run(self) -> None:
        """Steps until it is stopped, or has failed. The thread's own."""
        try:
            while not self._stopping and not self._failed:
                if not self.step():
                    self._pulse.beat(None, time.monotonic())
                    audits = self._auditor.wakes_in(time.monotonic())
                    self._wake.wait(_RETRY_SECONDS if self._tasks else audits)
                    self._wake.clear()
        except BaseException as error:
            logger.exception("the engine failed")
            self.fail(EngineFailed.of(error))
        self._end(self._failed or Draining("server", "was stopped", "Send the request to another server"))

    def _apply(self, plan: StepPlan, result: StepResult, began: float) -> None:
        """Hands out what a step made of its rows."""
        for row in plan.rows:
            row.sequence.advance(row.count)
            if self._auditor.captures:
                self._auditor.computed(row.sequence)
        now = time.monotonic()
        # Text is made without the lock: a caller who submits meanwhile does not wait for it.
        tokens = [self._push(sequence, result, now) for sequence in result.outcomes]
        with self._lock:
            self._take([token for token in tokens if token], plan, now - began, result.left is None)

    def _push(self, sequence: Sequence, result: StepResult, now: float) -> NewToken | None:
        """A row's token becomes a part of its answer. None: that failed, or something came in its place."""
        answer, serving, outcome = self._answers[sequence.request_id], self.serving, result.outcomes[sequence]
        try:
            if isinstance(outcome, RequestFailed):
                raise outcome
            depth, eos_ids = result.depth_of(sequence), serving.model.config.eos_token_ids
            breach = outcome.confidence < serving.threshold(depth)
            return answer.push(outcome, serving.served(depth), breach, eos_ids, now)
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            self._fail_alone(answer, RequestFailed.of(error))
            return None

    def _take(self, tokens: list[NewToken], plan: StepPlan, seconds: float, shaped: bool) -> None:
        """Counts what a step brought; ends those whose last token came."""
        self._stats.step(plan, sum(token.answer.request.counted for token in tokens), seconds, shaped)
        unix_seconds = time.time()
        for token in tokens:
            if token.first:
                self._picture_due = 0.0
            if token.answer.request.counted:
                self._watch.token(token.breach, token.answer.sequence.ordinal, unix_seconds)
                self._stats.token(token.confidence, token.waited, token.first)
            if token.last:
                self._finish(token.answer, token.last)

    def _audit(self) -> bool:
        """A small part of what the audit has to do. False: nothing."""
        serving = self.serving
        if serving.runner is None:
            return False
        requests = len(serving.scheduler.running) + len(serving.scheduler.waiting)
        return self._auditor.work(
            serving.runner, serving.model.tokenizer, serving.limits, time.monotonic(), requests
        )

    def _audited(self, row: AuditRow) -> None:
        with self._lock:
            self._watch.audit(row, time.time())
        self._tell()

    def _finish(self, answer: Answer, reason: FinishReason) -> None:
        with self._lock:
            try:
                self._let_go(answer)
                event = answer.finish(reason, time.monotonic())
                if answer.request.counted:
                    self._stats.finish(event)
                if answer.request.counted and event.output_ids:
                    self._watch.request(event.mean_confidence, event.ordinal, time.time())
            except BaseException as error:
                self._fail_alone(answer, RequestFailed.of(error))

    def _fail_alone(self, answer: Answer, error: RequestFailed) -> None:
        with self._lock:
            self._let_go(answer)
            self._stats.failed += answer.request.counted  # also one that had ended, if nobody could be told
        request_id, cause = answer.request.request_id, error.__cause__
        logger.error("request %r failed alone: %s", request_id, error, exc_info=cause)
        answer.fail(error)

    def _let_go(self, answer: Answer) -> None:
        """Frees what a request holds, once."""
        if self._answers.get(answer.request.request_id) is answer:
            self._picture_due = 0.0
            del self._answers[answer.request.request_id]
            self.serving.scheduler.finish(answer.sequence)
            self._auditor.drop(answer.sequence)

    def _abort(self, request_id: str) -> None:
        if answer := self._answers.get(request_id):
            self._finish(answer, FinishReason.ABORT)

    # -- between steps ---------------------------------------------------------------------------------------

    def at_boundary(self, task: Callable[[], T]) -> Future[T]:
        """Any thread: runs a task between steps, with submission held off; again while it raises NotYet."""
        with self._lock:
            if not self._stopping and not self._failed:
                future = self._tasks.add(task)
                self._wake.set()
                return future
        future = Future()
        future.set_exception(self._failed or Draining("server", "was stopped", "Ask another server"))
        return future

    def _post(self, task: Callable[[], None]) -> None:
        """Any thread: as `at_boundary`, for tasks that nobody waits for."""
        self.at_boundary(task)

    def _run_tasks(self) -> None:
        if not self._tasks:
            return
        self._pulse.beat(Work.TASK, time.monotonic())
        self._tell()  # it may take long, and meanwhile the last picture is all that can be read
        with self._lock:
            self._tasks.run()
        self._tell()

    def live(self) -> Collection[Sequence]:
        """Every request that has not ended. Under the lock, as boundary tasks are."""
        return [answer.sequence for answer in self._answers.values()]

    def close_to_requests(self, reason: str) -> None:
        """Turns new requests away for a reason; "" takes them again."""
        self._closed = reason

    def changed(self) -> None:
        """Other limits hold: windows begin anew, and detectors where what they watch is another."""
        self._stats.changed()
        self._follow()
        self._watch.follow(self.serving.exit_in_use)
        self._watch.probe(self.serving.limits.task_probe)

    def _follow(self) -> None:
        model = self.serving.model
        self._auditor.follow(model.precision, model.reading_seconds)

    def released(self) -> None:
        """The weights are gone, and with them what audits have captured and measured."""
        self._auditor.forget()
        self._watch.audits = ()

    def wait_for_audits(self) -> None:
        """Any thread but the engine's: returns when audits read no layer any more."""
        self._auditor.wait_for_reader()

    def fail(self, error: HeliosError) -> None:
        """Any thread: takes no more requests, and has the thread end all. The first reason stays."""
        self._failed = self._failed or error
        self._wake.set()

    def _end(self, error: HeliosError) -> None:
        """Ends every request with an error. The thread's last act."""
        with self._lock:
            self._failed = error
            answers, self._answers = self._answers, {}
            self._tasks.fail(error)
            self._stats.failed += sum(answer.request.counted for answer in answers.values())
        for answer in answers.values():
            answer.fail(error)
        self._auditor.close()
        try:
            self._tell()
        finally:
            self._news.tell()

    # -- counting --------------------------------------------------------------------------------------------

    def _count_plan(self, plan: StepPlan, now: float) -> None:
        self._stats.preemptions += len(plan.preempted)
        for sequence in plan.admitted:
            answer = self._answers[sequence.request_id]
            self._auditor.admit(sequence, self.serving.limits, now)
            if answer.scheduled is None:
                answer.scheduled = now
                self._stats.prompt_tokens += len(sequence.prompt_ids) * answer.request.counted


def _live(config: EngineConfig, limits: Limits, started: Future[Engine]) -> None:
    """The engine thread.

    It loads the model too: what kernels keep per thread is then measured where it will be.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        engine = Engine(config, Serving(config, load_model(config, limits)))
    except Exception as error:
        started.set_exception(error)
        return
    started.set_result(engine)
    engine.run()
