"""The control loop of a cluster: passes over HeliosDeployments, when something happened and now and then.

Made by `app`, which feeds it what kopf's watch tells. A pass is ensure -> observe -> decide -> apply ->
settle, level-based: it looks at everything and does what is missing. The loop holds no decision state: ended
at any moment and started again, it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import (
    DEPLOYMENT,
    LABELLED,
    MODEL,
    NODE,
    OURS,
    WATCHED,
    Key,
    Kind,
    Object,
    key_of,
)
from helios_operator.cluster.metrics import Metrics
from helios_operator.cluster.mirror import Mirror, is_ours, owner_of
from helios_operator.cluster.passing import Passes
from helios_operator.decide.plan import Plan
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.snapshot import JobPhase, Snapshot
from helios_operator.errors import ClusterError, ConflictError, problem_of
from helios_operator.passes.queue import WorkQueue
from helios_operator.render.installation import Installation

_SPACING_SECONDS = 0.1
_AFTER_WRITE_SECONDS = 0.3
_IN_FLUX_SECONDS = 1.0
_CONFLICT_SECONDS = 0.5
_UNREACHABLE_SECONDS = 5.0
"""While the API server does not answer: it is nobody's fault, and no reason to be late when it is back."""
_FAILURE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_REFUSED_SECONDS = 30.0
_CHORES_SECONDS = 30.0
_LISTED_SECONDS = 2.0
"""After the watch had to list everything again: a list does not tell what is gone."""
_MOST_PASSES_PER_SECOND = 50.0
"""Of all regular looks together: with many deployments each is looked at more seldom."""
_UNPROCESSABLE = (400, 422)
"""The API server's answers to a manifest that is wrong: the user's template made it so."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """`namespaces` empty: all of them. `nodes`: may they be read? `poll_seconds`: between looks at a
    deployment at rest; `resync_seconds`: between comparisons of everything with the API server; `policy`:
    what decides."""

    namespaces: tuple[str, ...] = ()
    nodes: bool = True
    poll_seconds: float = 5.0
    resync_seconds: float = 300.0
    passes_at_once: int = 8
    policy: Policy = DEFAULT

    @property
    def watched(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in WATCHED if self.nodes or kind is not NODE)


@dataclass(frozen=True)
class Again:
    """The next look at a deployment, in so many seconds. `idle`: nothing is known to be due then."""

    after: float
    idle: bool = False


class Operator:
    """Fed by `seen` and `gone`; begins with `begin`, when everything that exists has been seen once."""

    def __init__(
        self, client: Client, by: Installation, options: Options, budget: Kind, metrics: Metrics
    ) -> None:
        self._client = client
        self._options = options
        self._metrics = metrics
        self._mirror = Mirror(room=options.nodes)
        self._passes = Passes(client, self._mirror, by, budget, options.policy)
        self._queue = WorkQueue(_SPACING_SECONDS)
        self._begun = asyncio.Event()
        self._listed = asyncio.Event()
        self._running: set[str] = set()
        self._missed: set[str] = set()
        self._failures: dict[str, int] = {}
        self._uids: dict[str, str] = {}

    @property
    def heard(self) -> float:
        """When the API server last told something. Unix seconds."""
        return self._mirror.heard

    # -- fed by the watch -----------------------------------------------------------------------------------

    def begin(self) -> None:
        self._begun.set()

    def listed(self) -> None:
        """A watch has begun anew."""
        self._listed.set()

    def seen(self, kind: Kind, obj: Object) -> None:
        """One that cannot be kept is as if it was not there: an exception would end the watch."""
        self._mirror.heard = time.time()
        with _unless_odd(kind, obj):
            if is_ours(kind, obj) and self._mirror.put(kind, obj):
                self._look_at(kind, obj)

    def gone(self, kind: Kind, obj: Object) -> None:
        self._mirror.heard = time.time()
        with _unless_odd(kind, obj):
            if self._mirror.forget(kind, obj):
                self._look_at(kind, obj)

    def _look_at(self, kind: Kind, obj: Object) -> None:
        """Passes of the deployments that an object concerns. Rows are read when they are needed."""
        if kind is DEPLOYMENT:
            self._queue.add(_text(key_of(obj)))
        elif kind is MODEL:
            for each in self._mirror.all(DEPLOYMENT, obj["metadata"].get("namespace", "")):
                self._queue.add(_text(key_of(each)))
        elif owner := owner_of(obj):
            self._queue.add(_text(owner))

    # -- running --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._begun.wait()
        _log.info("all objects are known: %d HeliosDeployments", self._mirror.count(DEPLOYMENT))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync(), name="resync")
                group.create_task(self._chores(), name="chores")
                await self._dispatch(group)
        finally:
            await self._passes.close()

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """One pass at a time over a deployment, a few at a time over all."""
        slots = asyncio.Semaphore(self._options.passes_at_once)
        while True:
            await slots.acquire()
            text = await self._queue.get()
            self._metrics.waiting.set(len(self._queue))
            if text in self._running:
                self._missed.add(text)
                slots.release()
                continue
            self._running.add(text)
            task = group.create_task(self._take(text), name=f"pass of {text}")
            task.add_done_callback(lambda _: slots.release())

    async def _take(self, text: str) -> None:
        """Ends nothing but this pass, whatever happens in it."""
        began = time.monotonic()
        try:
            again = await self._try_pass(text)
        except Exception:
            _log.exception("pass of %s", text)
            again = self._back_off(text)
        self._metrics.pass_seconds.observe(time.monotonic() - began)
        self._running.discard(text)
        if text in self._missed:
            self._missed.discard(text)
            again = Again(0.0)
        if again is not None:
            self._queue.add(text, again.after, idle=again.idle)

    async def _try_pass(self, text: str) -> Again | None:
        """None: never. What fails is said and tried again: what serves goes on serving."""
        key = _key(text)
        obj = self._mirror.get(DEPLOYMENT, *key)
        if obj is None:
            self._forget(text)
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None
        result = "failed"
        try:
            again = await self._pass(obj)
            result = "done"
            self._failures.pop(text, None)
        except ConflictError as error:
            _log.info("pass of %s: %s", text, error)
            result, again = "conflict", Again(_CONFLICT_SECONDS)
        except ClusterError as error:
            _log.warning("pass of %s: %s", text, error)
            again = self._back_off(text) if error.status else _unreachable()
            if self._failures.get(text, 0) > 1:  # one may be the server's own trouble
                await self._fail(text, str(error))
        except Exception as error:
            _log.exception("pass of %s", text)
            again = self._back_off(text)
            await self._fail(text, problem_of(error))
        self._metrics.passes.labels(result).inc()
        return again

    async def _pass(self, obj: Object) -> Again:
        text = _text(key_of(obj))
        self._uids[text] = obj["metadata"].get("uid", "")
        passed = await self._passes.make(obj, lambda: self._queue.add(text))
        if passed is None:
            return Again(_REFUSED_SECONDS, idle=True)
        self._metrics.passed(passed.plan, passed.snapshot)
        return self._again(passed.plan, passed.snapshot, passed.wrote)

    async def _fail(self, text: str, problem: str) -> None:
        """Says so in the object, if that can be done."""
        obj = self._mirror.get(DEPLOYMENT, *_key(text))
        try:
            if obj is not None:
                await self._passes.fail(obj, problem)
        except Exception as error:
            _log.warning("%s cannot be told that its pass failed: %s", text, error)

    def _again(self, plan: Plan, snapshot: Snapshot, wrote: bool) -> Again:
        if wrote:
            return Again(_AFTER_WRITE_SECONDS)
        due = plan.requeue_after_seconds
        if _in_flux(plan, snapshot):
            return Again(_IN_FLUX_SECONDS if due is None else min(_IN_FLUX_SECONDS, due))
        seldom = max(self._options.poll_seconds, self._mirror.count(DEPLOYMENT) / _MOST_PASSES_PER_SECOND)
        wait = seldom * random.uniform(0.8, 1.2)
        return Again(due) if due is not None and due < wait else Again(wait, idle=True)

    def _back_off(self, text: str) -> Again:
        failures = self._failures[text] = self._failures.get(text, 0) + 1
        seconds = _FAILURE_SECONDS[min(failures, len(_FAILURE_SECONDS)) - 1]
        return Again(seconds * random.uniform(0.8, 1.2))

    def _forget(self, text: str) -> None:
        uid = self._uids.pop(text, "")
        self._queue.forget(text)
        self._failures.pop(text, None)
        self._passes.forget(uid)
        self._metrics.forget(_key(text))

    # -- now and then ---------------------------------------------------------------------------------------

    async def _chores(self) -> None:
        while True:
            await asyncio.sleep(_CHORES_SECONDS)
            try:
                await self._passes.drop_stale()
            except Exception:
                _log.exception("clearing up")

    async def _resync(self) -> None:
        """Compares what is known with what is there: a watch may lose a deletion, or fall silent."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.resync_seconds * random.uniform(0.8, 1.2)):
                    await self._listed.wait()
                    await asyncio.sleep(_LISTED_SECONDS)
            self._listed.clear()
            try:
                missed = sum([await self._compare(kind) for kind in self._options.watched])
            except Exception as error:
                _log.warning("comparing with the API server: %s", problem_of(error))
                self._listed.set()
                continue
            if not missed:
                self._mirror.heard = time.time()

    async def _compare(self, kind: Kind) -> int:
        """How many there were that nobody had told of."""
        before, buried = self._mirror.newest(kind), self._mirror.buried
        spaces: Sequence[str] = self._options.namespaces if kind.namespaced else ()
        selector = OURS if kind in LABELLED else ""
        names: set[Key] = set()
        missed = 0
        for space in spaces or ("",):
            async for page in self._client.pages(kind, space, selector):
                names.update(map(key_of, page))
                for obj in page:
                    with _unless_odd(kind, obj):
                        missed += self._found(kind, self._mirror.take(kind, [obj], before, buried))
        return missed + self._found(kind, self._mirror.clear(kind, names, before))

    def _found(self, kind: Kind, objects: Sequence[Object]) -> int:
        for obj in objects:
            _log.warning("nobody told of %s %s", kind.name, "/".join(key_of(obj)))
            self._look_at(kind, obj)
        return len(objects)


@contextlib.contextmanager
def _unless_odd(kind: Kind, obj: Object) -> Iterator[None]:
    """One object in a shape that nobody foresaw must not end the watch of all others."""
    try:
        yield
    except Exception:
        name = (obj.get("metadata") or {}).get("name")
        _log.exception("%s %s is not understood, and left out", kind.name, name)


def _unreachable() -> Again:
    return Again(_UNREACHABLE_SECONDS * random.uniform(0.8, 1.2))


def _in_flux(plan: Plan, snapshot: Snapshot) -> bool:
    """Something is on its way that pods may tell of at any moment."""
    status = plan.status
    rolling = status.rollout is not None and status.rollout.phase in ("RollingOut", "Draining")
    measuring = any(job.phase is JobPhase.RUNNING for job in snapshot.jobs)
    pods = [pod for revision in snapshot.revisions for pod in revision.pods]
    unsettled = not pods or any(not pod.ready for pod in pods)
    weighing = status.reassessment.trigger is not None
    return status.target is not None or rolling or measuring or weighing or unsettled


def _text(key: Key) -> str:
    return "/".join(key)


def _key(text: str) -> Key:
    namespace, _, name = text.partition("/")
    return namespace, name
