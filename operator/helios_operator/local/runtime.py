"""The control loop on one machine: objects in, pods and a front address out, one pass at a time.

Used by `helios up`, the demo and the tests. A pass is ensure -> observe -> decide -> apply -> settle,
level-based: it looks at everything and computes what is missing, every half second and whenever something
happened. The runtime holds no decision state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from helios_operator.api import identity, parse, validation
from helios_operator.api.codec import Malformed
from helios_operator.api.problems import Invalid
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Deployment
from helios_operator.decide import decide
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError, UnsupportedError, problem_of
from helios_operator.local import hardware
from helios_operator.local.admin import AdminServer, Change
from helios_operator.local.apply import LocalHands
from helios_operator.local.events import Listener, Record
from helios_operator.local.lock import StateLock
from helios_operator.local.neighbours import Wanted, adopt
from helios_operator.local.observe import Observer
from helios_operator.local.rest import is_at_rest
from helios_operator.local.site import Machine, Site
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT, MODEL, PROFILE, Object, Store
from helios_operator.passes import caretaking
from helios_operator.passes.hands import carry_out, do
from helios_operator.passes.queue import WorkQueue
from helios_operator.passes.unread import named
from helios_operator.render.commands import OPEN, Access

_RESYNC_SECONDS, _AT_REST_SECONDS = 0.5, 2.0
"""Between passes that nothing asked for. A pass takes hundredths of a second of the processor that serves:
where nothing is under way there are fewer."""
_SOONEST_SECONDS = 0.1
_FAILURE_SECONDS = (1.0, 2.0, 5.0, 10.0)
_GIVE_UP = 2
"""Restarts of a pod that never served, after which it is no accident."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How this machine is used. `memory_mib` None: all of it. `port` None: each deployment's own
    `service.port`, 0: a free one; `http_port`: the same for `service.httpPort`, unless `http` is False: then
    there is none. `grace_seconds` None: each deployment's own drain timeout, when the runtime ends.
    `neighbours`: state folders of which measurements are taken over."""

    volumes: Path
    device: str = "auto"
    dtype: str | None = None
    memory_mib: int | None = None
    watts: float | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    http: bool = True
    http_port: int | None = None
    command: str = "helios up"
    grace_seconds: float | None = None
    access: Access = OPEN
    neighbours: tuple[Path, ...] = ()


class LocalRuntime:
    """An async context manager: inside it the objects are served; outside it no process of it is left."""

    def __init__(
        self,
        objects: Sequence[Mapping[str, Any]],
        state: Path,
        options: Options,
        listener: Listener | None = None,
    ) -> None:
        self._objects = objects
        self._state = state
        self._options = options
        self._listener = listener
        self._sites: dict[str, Site] = {}
        self._failures: dict[str, int] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._passed = asyncio.Event()
        self._seen: set[str] = set()
        self._queue = WorkQueue(_SOONEST_SECONDS)

    # -- its life -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> LocalRuntime:
        """Raises what is wrong with the objects, the state folder or the port before any process is
        started."""
        for obj in self._objects:
            _admit(dict(obj), None)
        self._lock = StateLock.acquire(self._state, self._options.command)
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._lock.release)
            self._store = Store.open(self._state / "objects", _admit)
            names = self._take_in(self._objects)
            self._machine = self._survey()
            self._observer = Observer(self._store, self._machine)
            for name in names:
                await self._open_site(name, undo)
                self._take_over(name)
            self._admin = AdminServer(self._state, self._change)
            await self._admin.open()
            undo.pop_all()
        for site in self._sites.values():
            site.settle(())
            self._queue.add(site.name)
        self._loop = asyncio.create_task(self._run(), name="passes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Pods drain, Jobs end, nothing is left. Call `kill` meanwhile to cut what still streams."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self._admin.close()
        await asyncio.gather(*(site.stop(self._grace(site)) for site in self._sites.values()))
        self._lock.release()

    def kill(self) -> None:
        """Every process at once."""
        for site in self._sites.values():
            site.revisions.kill()

    # -- seen and asked from outside ------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(self._sites)

    def front_address(self, name: str) -> str:
        return self._sites[name].front.address

    def http_address(self, name: str) -> str:
        """The same for OpenAI's API; "" where it is not served."""
        return self._sites[name].http_front.address

    def encrypted(self, name: str) -> bool:
        """Whether pods speak TLS, which the front addresses pass on as it is."""
        return self._sites[name].encrypted

    def deployment(self, name: str) -> Object:
        """The object with its status, as `kubectl get -o yaml` would show it."""
        return self._store.get(DEPLOYMENT, name)

    def model(self, name: str) -> Object:
        """An entry of the catalogue, with its status."""
        return self._store.get(MODEL, name)

    def condition(self, name: str, type: str) -> str:
        """Its status: "True", "False" or "Unknown"."""
        conditions = self._store.get(DEPLOYMENT, name).get("status", {}).get("conditions", [])
        return next((str(c["status"]) for c in conditions if c["type"] == type), "Unknown")

    def snapshot(self, name: str) -> Snapshot | None:
        """What the newest pass saw, telemetry included; None before the first."""
        return self._snapshots.get(name)

    def profiles(self) -> list[Object]:
        return self._store.objects(PROFILE)

    def events(self, name: str) -> list[Record]:
        return self._sites[name].log.records()

    def pids(self, name: str) -> dict[str, int]:
        """Of the pods that run, by pod name."""
        return {pod.name: pod.pid for pod in self._sites[name].revisions.pods() if pod.pid is not None}

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        self._change(Change(name, annotations=annotations))

    def patch(self, name: str, path: tuple[str, ...], value: Any) -> None:
        """Sets one field of the spec, admitted by the same rules as the file was."""
        self._change(Change(name, spec_path=path, spec_value=value))

    def hopeless(self, name: str) -> list[str]:
        """Why this deployment never served and will not before a person acts; empty while there is hope."""
        status = self._store.get(DEPLOYMENT, name).get("status", {})
        revisions = self._sites[name].revisions
        if status.get("active") or revisions.backends():
            return []
        for condition in status.get("conditions", []):
            if condition["reason"] == Reason.INVALID_SPEC:
                return [condition["message"]]
        crashing = revisions.crashing(_GIVE_UP)
        reasons = [
            crashing.get(candidate["name"]) or (candidate["state"] == "Failed" and candidate.get("message"))
            for candidate in status.get("candidates", [])
        ]
        return [str(reason) for reason in reasons] if all(reasons) else []

    async def wait_for(self, predicate: Callable[[LocalRuntime], object], timeout: float | None) -> None:
        """Until the predicate holds after a pass of each deployment: what an earlier run left in a status is
        not taken for what is. TimeoutError when it does not hold in time."""
        async with asyncio.timeout(timeout):
            while not (self._seen == self._sites.keys() and predicate(self)):
                self._passed.clear()
                await self._passed.wait()

    # -- passes ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            name = await self._queue.get()
            again = await self._try_pass(self._sites[name])
            self._queue.add(name, after=again)
            self._seen.add(name)
            if self._seen == self._sites.keys():
                self._lock.begin()
            self._passed.set()

    async def _try_pass(self, site: Site) -> float:
        """One pass; seconds until the next. A bug in a pass is said and tried again: what serves goes on
        serving."""
        began = time.monotonic()
        try:
            again = await self._pass(site)
            self._failures.pop(site.name, None)
        except Exception as error:
            failures = self._failures[site.name] = self._failures.get(site.name, 0) + 1
            again = _FAILURE_SECONDS[min(failures, len(_FAILURE_SECONDS)) - 1]
            _log.exception("pass of %s", site.name)
            self._fail(site, problem_of(error))
        _log.debug("pass of %s took %.0f ms", site.name, 1000 * (time.monotonic() - began))
        return again

    async def _pass(self, site: Site) -> float:
        await self._ensure(site)
        claimed = sum(other.revisions.claimed_mib for other in self._sites.values())
        now = datetime.now(UTC)
        try:
            sight = await self._observer.observe(site, claimed)
        except Malformed as error:
            problem = f"{error}; run the `helios` that wrote it, or repair {self._store.folder}"
            return await self._take_care(site, Reason.STATUS_UNREADABLE, problem, now)
        self._snapshots[site.name] = sight.snapshot
        try:
            if not sight.snapshot.revisions:
                site.refuse_missing_secrets(sight.snapshot.deployment)
            plan = named(decide(sight.snapshot, now), sight)
            await carry_out(plan, LocalHands(self._store, self._observer, site, sight.snapshot, now))
        except UnsupportedError as error:
            return await self._take_care(site, Reason.INVALID_SPEC, str(error), now)
        finally:
            site.settle(sight.snapshot.revisions)
        most = _AT_REST_SECONDS if is_at_rest(sight.snapshot) else _RESYNC_SECONDS
        requested = plan.requeue_after_seconds
        return min(most, requested if requested is not None else most)

    async def _take_care(self, site: Site, reason: Reason, problem: str, now: datetime) -> float:
        """It goes on as it is, and says why nothing more is done."""
        obj = self._store.get(DEPLOYMENT, site.name)
        hd, revisions = caretaking.stub(obj), await site.revisions.see()
        nothing = caretaking.snapshot(hd, revisions)
        for action in caretaking.drains(obj, revisions, now):
            await do(action, LocalHands(self._store, self._observer, site, nothing, now))
        told = caretaking.unready(obj, caretaking.seen(obj, revisions, now), reason, problem, now)
        self._store.write_status(DEPLOYMENT, site.name, told)
        site.log.add("event", site.name, reason, problem, type="Warning")
        site.settle(revisions)
        return _RESYNC_SECONDS

    def _fail(self, site: Site, problem: str) -> None:
        """What is said of the object is not said of yesterday."""
        site.log.add("runtime", site.name, Reason.PASS_FAILED, problem, type="Warning")
        obj = self._store.get(DEPLOYMENT, site.name)
        told = caretaking.unready(
            obj, obj.get("status") or {}, Reason.PASS_FAILED, problem, datetime.now(UTC)
        )
        try:
            self._store.write_status(DEPLOYMENT, site.name, told)
        except (OperatorError, Invalid) as error:
            _log.warning("%s cannot be told that its pass failed: %s", site.name, error)

    async def _ensure(self, site: Site) -> None:
        options, spec = self._options, self._wanted(site.name).spec
        port = spec.port if options.port is None else options.port
        http_port = spec.http_port if options.http_port is None else options.http_port
        await site.ensure(options.host, port, http_port if options.http else None)

    def _wanted(self, name: str) -> Deployment:
        """As its spec says, whatever its status is."""
        return parse.deployment({**self._store.get(DEPLOYMENT, name), "status": {}})

    # -- beginning ------------------------------------------------------------------------------------------

    def _take_in(self, objects: Sequence[Mapping[str, Any]]) -> list[str]:
        """Applies the objects; what an earlier file held of models and ConfigMaps, and this one does not,
        goes."""
        kept = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
        for kind in (MODEL, CONFIG_MAP):
            for name in self._store.names(kind):
                if (kind, name) not in kept:
                    self._store.delete(kind, name)
        for obj in objects:
            self._store.apply(obj)
        names = [obj["metadata"]["name"] for obj in objects if obj["kind"] == DEPLOYMENT]
        if not names:
            raise OperatorError("FILE", f"holds no {DEPLOYMENT}", "add one: see examples/")
        given = {"port": self._options.port, "http-port": self._options.http_port}
        if len(names) > 1 and (shared := next((option for option, port in given.items() if port), "")):
            field = "port" if shared == "port" else "httpPort"
            fix = f"set each spec.service.{field}"
            raise OperatorError(shared, f"cannot be shared by {len(names)} deployments", fix)
        return names

    def _take_over(self, name: str) -> None:
        """What other deployments of this machine measured already."""
        deployment = self._wanted(name)
        prompts, given = self._observer.given_prompts(deployment), self._observer.tasks_digest(deployment)
        models = (self._store.get(MODEL, model)["spec"] for model in self._store.names(MODEL))
        uris = {c.uri for c in deployment.spec.candidates} | {str(model["uri"]) for model in models}
        digests = {identity.prompts_digest(prompts)} if prompts else set()
        wanted = Wanted(frozenset(uris), frozenset(digests | ({given} if given else set())))
        if found := adopt(self._store, self._options.neighbours, wanted):
            said = f"{', '.join(found)}: measured on this machine for others"
            self._sites[name].log.add("job", "profiles", "Found", said)

    def _survey(self) -> Machine:
        options = self._options
        device, found = hardware.detect(options.device, options.dtype)
        return Machine(
            device=device,
            hardware=found,
            memory_mib=options.memory_mib or found.memory_mib,
            volumes=options.volumes,
            memory_given=options.memory_mib is not None,
            watts=options.watts,
            host=options.host,
            access=options.access,
        )

    async def _open_site(self, name: str, undo: contextlib.AsyncExitStack) -> None:
        deployment = self._wanted(name)
        folder = self._state / "deployments" / name
        site = Site(folder, deployment, self._machine, lambda: self._queue.add(name), self._listener)
        await self._ensure(site)
        undo.push_async_callback(site.close_fronts)
        self._sites[name] = site

    def _grace(self, site: Site) -> float:
        if self._options.grace_seconds is not None:
            return self._options.grace_seconds
        return float(self._wanted(site.name).spec.rollout.drain.timeout_seconds)

    def _change(self, change: Change) -> None:
        """Makes a change that was asked for by hand; the next pass looks at it at once."""
        if change.annotations:
            self._store.annotate(DEPLOYMENT, change.deployment, change.annotations)
        if change.spec_path:
            wanted = self._store.get(DEPLOYMENT, change.deployment)
            _set(wanted["spec"], change.spec_path, change.spec_value)
            self._store.apply(wanted)
        self._queue.add(change.deployment)


def _admit(obj: Object, old: Object | None) -> Object:
    if obj.get("kind") == CONFIG_MAP:  # a cluster has its own rules for these; here they only carry prompts
        return obj
    return validation.admit(obj, old)


def _set(spec: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    for key in parents:
        spec = spec.setdefault(key, {})
    spec[last] = value
