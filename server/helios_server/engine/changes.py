"""Changes of limits while serving: prepared in a thread of their own, published between two steps.

Called through `Engine.set_limits`. One change at a time, in the order they came. A refused change leaves
everything as it was. It must never touch what the engine thread owns except from inside a boundary task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from helios_contract.limits import Limits
from helios_contract.telemetry import Refusal

from helios_server.engine.heads import load_heads
from helios_server.engine.limits import LimitsOutcome, depths
from helios_server.engine.memory import MemoryPlan
from helios_server.engine.sequence import Sequence
from helios_server.engine.serving import Serving, load_model, tokenizer_digest
from helios_server.errors import EngineFailed, HeliosError, LimitsRefused, StaleGeneration
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import resolve

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a boundary task that has to wait: it is run again before the next step."""


class Host(Protocol):
    """What a change needs of the engine."""

    serving: Serving

    def at_boundary(self, task: Callable[[], T]) -> Future[T]:
        """Runs a task in the engine thread between two steps, with submission held off; again while it raises
        NotYet.
        """
        ...

    def live(self) -> Collection[Sequence]:
        """Every request that has not ended, queued ones included."""
        ...

    def close_to_requests(self, reason: str) -> None:
        """Turns new requests away for a reason; "" takes them again."""
        ...

    def changed(self) -> None:
        """Other limits hold now."""
        ...

    def released(self) -> None:
        """The weights are gone: what was captured of their work means nothing any more."""
        ...

    def fail(self, error: HeliosError) -> None:
        """The engine cannot go on."""
        ...


class Changes:
    """The thread that prepares. refused: the newest change that could not be made."""

    def __init__(self, host: Host) -> None:
        self.refused: Refusal | None = None
        self._host = host
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="helios-changes")

    def submit(self, limits: Limits, if_generation: int | None) -> Future[LimitsOutcome]:
        """Begins a change. The future fails with a HeliosError when it is refused."""
        return self._worker.submit(self._change, limits, if_generation, time.monotonic())

    def close(self) -> None:
        """Takes no more changes; one that is under way ends as the engine does."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _change(self, limits: Limits, if_generation: int | None, called: float) -> LimitsOutcome:
        serving = self._host.serving
        try:
            _check_generation(limits, serving.limits, if_generation)
            reprefilled = (
                self._exchange(limits) if _other_model(limits, serving.limits) else self._adjust(limits)
            )
        except HeliosError as error:
            self.refused = Refusal(limits.generation, str(error))
            raise
        return LimitsOutcome(serving.limits, serving.capacity, time.monotonic() - called, reprefilled)

    def _publish(self, task: Callable[[], T]) -> T:
        return self._host.at_boundary(task).result()

    # -- the same backbone: budget, heads, batch, queue, audit -----------------------------------------------

    def _adjust(self, limits: Limits) -> int:
        serving = self._host.serving
        backbone, config = serving.weights.backbone, serving.config
        if not limits.model_revision:
            limits = replace(limits, model_revision=serving.limits.model_revision)
        heads, limits = load_heads(
            backbone, limits, serving.weights.heads, volumes=config.volumes, offline=config.offline
        )
        plan = serving.model.plan(limits, heads, backbone.numerics.device)
        pages = serving.scheduler.pages.capacity
        try:
            self._publish(lambda: self._make_room(plan))
            new_layers = [backbone.load_layer(index) for index in range(backbone.num_loaded, plan.layers)]
        except HeliosError:
            self._publish(lambda: self._restore(pages))
            raise

        def publish() -> None:
            serving.adjust(limits, heads, plan, new_layers)
            self._host.changed()

        self._publish(publish)
        return 0

    def _make_room(self, plan: MemoryPlan) -> None:
        """Before anything is loaded, the pool gives up the pages whose memory it will take.

        Admission pauses until running sequences hold no more than what stays; nothing is dropped.
        """
        serving = self._host.serving
        pages = serving.scheduler.pages
        if plan.pages >= pages.capacity:
            return
        remaining = plan.pages * serving.config.page_tokens
        _check_live(self._host.live(), remaining, plan)
        serving.kv_tokens = remaining
        serving.scheduler.admitting = False
        if pages.used > plan.pages:
            raise NotYet
        serving.resize(plan.pages)
        serving.scheduler.admitting = True

    def _restore(self, pages: int) -> None:
        self._host.serving.resize(pages)
        self._host.serving.scheduler.admitting = True

    # -- another backbone, in place --------------------------------------------------------------------------

    def _exchange(self, limits: Limits) -> int:
        """The old weights go before the new ones come: there may be memory for one model only."""
        host, serving = self._host, self._host.serving
        config, previous = serving.config, serving.limits
        found = resolve(
            limits.model_uri, limits.model_revision or None, volumes=config.volumes, offline=config.offline
        )
        checkpoint = Checkpoint.open(found.path)
        depths(limits, checkpoint.config.num_layers)
        same_tokens = tokenizer_digest(checkpoint) == serving.model.tokenizer_digest
        try:
            reprefilled = self._publish(lambda: self._release(same_tokens))
            refusal = self._try_install(limits)
        finally:
            host.close_to_requests("")
        if refusal:
            self._go_back(previous)
            raise refusal
        return reprefilled

    def _release(self, same_tokens: bool) -> int:
        """With the same tokenizer sequences go on where they are, prefilled again; else they end first."""
        if not same_tokens:
            self._host.close_to_requests("the model is being exchanged for one with another tokenizer")
            if self._host.live():
                raise NotYet
        self._host.released()
        return self._host.serving.release()

    def _install(self, limits: Limits) -> None:
        serving = self._host.serving
        loaded = load_model(serving.config, limits, serving.model)

        def publish() -> None:
            _check_live(
                self._host.live(), loaded.plan.pages * self._host.serving.config.page_tokens, loaded.plan
            )
            self._host.serving.exchange(loaded)
            self._host.changed()

        self._publish(publish)

    def _try_install(self, limits: Limits) -> HeliosError | None:
        """Returns the error bare: its traceback would keep the weights of what could not be installed."""
        try:
            self._install(limits)
        except HeliosError as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        return None

    def _go_back(self, previous: Limits) -> None:
        if error := self._try_install(previous):
            problem = f"the old model cannot be loaded back ({error})"
            self._host.fail(EngineFailed("model", problem, "Restart the server"))


def _other_model(limits: Limits, current: Limits) -> bool:
    same_revision = limits.model_revision in ("", current.model_revision)
    return limits.model_uri != current.model_uri or not same_revision


def _check_generation(limits: Limits, current: Limits, if_generation: int | None) -> None:
    held = current.generation
    if if_generation is not None and if_generation != held:
        raise StaleGeneration(
            "if_generation", f"{if_generation} is not the current {held}", "Read the limits again"
        )
    if limits.generation <= held:
        problem = f"{limits.generation} is not above the current {held}"
        raise StaleGeneration("limits.generation", problem, "Raise it with every change")


def _check_live(sequences: Collection[Sequence], tokens: int, plan: MemoryPlan) -> None:
    """No request that was accepted may come to need more than the pool will hold."""
    longest = max((sequence.max_length for sequence in sequences), default=0)
    if longest > tokens:
        raise LimitsRefused(
            "limits.layer_budget",
            f"a request under way may need {longest} tokens of KV, {plan.layers} layers leave {tokens}",
            "Try again when it has ended, or raise the memory limit",
        )
