"""Changes of limits while serving: prepared in a thread of their own, published between two steps.

Called through `Engine.set_limits`. One change at a time, in the order they came. A refused change leaves
everything as it was, whatever was raised; where that cannot be, the engine fails. It must never touch what
the engine thread owns except from inside a boundary task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from helios_contract.limits import Limits
from helios_contract.telemetry import Refusal

from helios_server.engine import exit_mode
from helios_server.engine.brief import briefly
from helios_server.engine.heads import load_heads
from helios_server.engine.kept import Kept
from helios_server.engine.limits import LimitsOutcome, check_process, depths
from helios_server.engine.memory import MemoryPlan, context_tokens
from helios_server.engine.requantize import foreseen, hold_otherwise
from helios_server.engine.room import Room, check_pool
from helios_server.engine.sequence import Sequence
from helios_server.engine.serving import Loaded, Model, Serving, load_model, tokenizer_digest
from helios_server.engine.tasks import NotYet
from helios_server.errors import (
    Draining,
    EngineFailed,
    HeliosError,
    LimitsRefused,
    OutOfMemoryBudget,
    StaleGeneration,
)
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import resolve

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""A change waits no longer for requests under way, which hold up or turn away those that come meanwhile."""


class Host(Protocol):
    """What a change needs of the engine."""

    serving: Serving

    @property
    def failed(self) -> HeliosError | None:
        """Why it cannot go on, if it cannot."""
        ...

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

    def wait_for_audits(self) -> None:
        """Returns when audits read nothing any more."""
        ...

    def fail(self, error: HeliosError) -> None:
        """The engine cannot go on."""
        ...


@dataclass(frozen=True)
class _Before:
    """What served, should a change be undone. pages: of the pool."""

    limits: Limits
    model: Model
    pages: int


class Changes:
    """The thread that prepares.

    refused: the newest change that could not be made. since: when the one under way began, None without one;
    ended: when the last one did; seconds on the monotonic clock.
    """

    def __init__(self, host: Host) -> None:
        self.refused: Refusal | None = None
        self.since: float | None = None
        self.ended = time.monotonic()
        self._host = host
        self._kept = Kept()
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="helios-changes")

    def submit(self, limits: Limits, if_generation: int | None) -> Future[LimitsOutcome]:
        """Begins a change. The future fails with a HeliosError when it is refused."""
        try:
            return self._worker.submit(briefly, self._change, limits, if_generation, time.monotonic())
        except RuntimeError:  # closed: a thread pool has no word of its own for it
            raise Draining("server", "was stopped", "Send the limits to another server") from None

    def close(self) -> None:
        """Takes no more changes; one that is under way ends as the engine does."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _change(self, limits: Limits, if_generation: int | None, called: float) -> LimitsOutcome:
        self.since, serving = time.monotonic(), self._host.serving
        try:
            _check_generation(limits, serving.limits, if_generation)
            reprefilled = self._make(limits)
        except HeliosError as error:
            self.refused = Refusal(limits.generation, str(error))
            raise
        finally:
            self.ended, self.since = time.monotonic(), None
        return LimitsOutcome(serving.limits, serving.capacity, time.monotonic() - called, reprefilled)

    def _make(self, limits: Limits) -> int:
        """Returns the requests that are prefilled again. Undone where it fails."""
        serving = self._host.serving
        before = _Before(serving.limits, serving.model, serving.pool.pages)
        made: list[int] = []
        refusal = _attempt(lambda: made.append(self._way(limits, before.limits)(limits)))
        if refusal:
            self._undo(before)
        self._kept = Kept()
        if refusal:
            raise refusal
        return made[0]

    def _way(self, limits: Limits, current: Limits) -> Callable[[Limits], int]:
        serving, another = self._host.serving, _other_model(limits, current)
        exit_mode.check_change(limits, current, serving.num_layers, same_model=not another)
        check_process(limits, serving.config)
        if another:
            return self._exchange
        return self._adjust if limits.precision == current.precision else self._requantize

    def _publish(self, task: Callable[[], T]) -> T:
        """Runs a task between two steps. One that breaks is this change's failure, not the engine's."""

        def guarded() -> T:
            try:
                return task()
            except NotYet:
                raise
            except BaseException as error:
                raise _refusal(error) from None

        return self._host.at_boundary(guarded).result()

    # -- back to what served ---------------------------------------------------------------------------------

    def _undo(self, before: _Before) -> None:
        """In place while it still stands, else from its files; the engine fails where neither can be."""
        if self._closed or self._host.failed:
            return
        if not _attempt(lambda: self._reopen(before)):
            return
        error = _attempt(lambda: self._replace(before.limits, before.model, same=True, anew=False))
        if error and not (self._closed or self._host.failed):
            problem = f"what served cannot be loaded back ({error})"
            self._host.fail(EngineFailed("model", problem, "Restart the server"))

    def _reopen(self, before: _Before) -> None:
        serving = self._host.serving

        def reopen() -> None:
            if not (serving.whole and serving.runner and serving.limits is before.limits):
                raise LimitsRefused("model", "does not stand any more", "Load it again")
            serving.reopen(before.pages)
            self._host.close_to_requests("")

        self._publish(reopen)

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
        deadline = time.monotonic() + PATIENCE_SECONDS
        self._publish(lambda: self._make_room(plan, deadline))
        new_layers = [backbone.load_layer(index) for index in range(backbone.num_loaded, plan.layers)]

        def publish() -> None:
            with serving.changing():
                serving.adjust(limits, heads, plan, new_layers)
                self._host.changed()

        self._publish(publish)
        return 0

    def _make_room(self, plan: MemoryPlan, deadline: float) -> None:
        """Before anything is loaded, the pool gives up the pages whose memory it will take.

        Admission pauses until running sequences hold no more than what stays; nothing is dropped.
        """
        serving = self._host.serving
        pages = serving.scheduler.pages
        if plan.pages >= pages.capacity:
            return
        remaining = plan.pages * serving.config.page_tokens
        check_pool(self._host.live(), remaining, plan.layers)
        serving.kv_tokens = remaining
        serving.scheduler.admitting = False
        if pages.used > plan.pages:
            _wait(deadline, lambda: _too_many_pages(pages.used * serving.config.page_tokens, remaining, plan))
        serving.resize(plan.pages)
        serving.scheduler.admitting = True

    # -- the same backbone in another precision --------------------------------------------------------------

    def _requantize(self, limits: Limits) -> int:
        """Nothing is converted: running streams wait, layers are exchanged one by one, or only the slabs are,
        and what each stream has seen is computed again.
        """
        serving = self._host.serving
        limits = replace(limits, model_revision=serving.limits.model_revision)
        plan = foreseen(serving, limits)
        tokens = plan.pages * serving.config.page_tokens

        def check() -> None:
            check_pool(self._host.live(), tokens, plan.layers)
            serving.kv_tokens = min(serving.kv_tokens, tokens)
            self._kept = Kept(serving.weights.backbone)

        return self._replace(limits, serving.model, same=True, check=check)

    # -- another backbone, in place --------------------------------------------------------------------------

    def _exchange(self, limits: Limits) -> int:
        """The old weights go before the new ones come: there may be memory for one model only."""
        room, served = self._room(limits), self._host.serving.model
        deadline = time.monotonic() + PATIENCE_SECONDS
        self._publish(lambda: self._let_end(room, served.tokenizer_digest, deadline))
        return self._replace(limits, served)

    def _room(self, limits: Limits) -> Room:
        """All that can fail without touching memory."""
        config = self._host.serving.config
        found = resolve(
            limits.model_uri, limits.model_revision or None, volumes=config.volumes, offline=config.offline
        )
        checkpoint = Checkpoint.open(found.path)
        depths(limits, checkpoint.config.num_layers)
        context = context_tokens(checkpoint.config, config)
        return Room(context, checkpoint.config.vocab_size, tokenizer_digest(checkpoint))

    def _let_end(self, room: Room, tokenizer: str, deadline: float) -> None:
        """Requests that could not go on under the new model end first; those to come are held to it.

        With the same tokenizer all others go on where they are, prefilled again.
        """
        if room.tokenizer != tokenizer:
            self._host.close_to_requests("the model is being exchanged for one with another tokenizer")
        self._host.serving.promise(room.context, room.vocabulary)
        if misfit := room.misfit(self._host.live(), tokenizer):
            _wait(deadline, lambda: misfit)

    def _replace(
        self,
        limits: Limits,
        before: Model,
        *,
        same: bool = False,
        anew: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Lets go of what is loaded, and loads what the limits name.

        same: it must be the model `before`; anew: every sequence takes a new depth; check: the last word
        before anything is let go.
        """
        host, serving = self._host, self._host.serving

        def release() -> int:
            check()
            host.released()
            return serving.release()

        def publish(loaded: Loaded) -> None:
            model = loaded.model
            room = Room(model.context, model.config.vocab_size, model.tokenizer_digest)
            if misfit := room.misfit(host.live(), before.tokenizer_digest):
                raise misfit
            check_pool(host.live(), loaded.plan.pages * serving.config.page_tokens, loaded.plan.layers)
            with serving.changing():
                serving.exchange(loaded, anew)
                host.close_to_requests("")
                host.changed()

        reprefilled = self._publish(release)
        host.wait_for_audits()
        loaded = self._load(limits, before, same)
        self._publish(lambda: publish(loaded))
        return reprefilled

    def _load(self, limits: Limits, before: Model, same: bool) -> Loaded:
        """What is left of the weights that served stays, where it is in the precision that is wanted."""
        config = self._host.serving.config
        if whole := self._kept.whole(limits.weight_dtype):
            return hold_otherwise(config, limits, before, whole)
        return load_model(config, limits, before, same, self._kept)


def _attempt(action: Callable[[], object]) -> HeliosError | None:
    """Returns the error bare: its traceback would keep the weights of what could not be installed."""
    try:
        action()
    except BaseException as error:
        refusal = _refusal(error)
        refusal.__cause__ = refusal.__context__ = None
        return refusal.with_traceback(None)
    return None


def _refusal(error: BaseException) -> HeliosError:
    """An error as the caller's answer, whatever was raised."""
    if isinstance(error, HeliosError):
        return error
    logger.error("a change of limits failed", exc_info=error)
    found = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        problem = f"there is no memory for this change ({found})"
        return OutOfMemoryBudget("limits", problem, "Raise the memory limit, or lower the layer budget")
    return LimitsRefused("limits", f"this change failed ({found})", "Look for its trace in the server's log")


def _wait(deadline: float, refusal: Callable[[], LimitsRefused]) -> None:
    """The task has to be run again; refused when requests under way have had their time."""
    if time.monotonic() < deadline:
        raise NotYet
    raise refusal()


def _too_many_pages(held: int, left: int, plan: MemoryPlan) -> LimitsRefused:
    return LimitsRefused(
        "limits.layer_budget",
        f"requests under way hold {held} tokens of KV after {PATIENCE_SECONDS:g} s, "
        f"{plan.layers} layers leave {left}",
        "Try again when they have ended, or raise the memory limit",
    )


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
