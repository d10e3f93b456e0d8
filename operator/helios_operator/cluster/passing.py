"""One pass over one HeliosDeployment: ensure, observe, decide, apply, settle; or, where nothing can be
decided, what serves is looked after and the object says why.

Called by `operator`, which says when. Every pass begins anew from the API; what is kept here spares calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from helios_operator.api import parse, validation
from helios_operator.api.codec import Malformed
from helios_operator.api.problems import Invalid
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Deployment
from helios_operator.cluster import events
from helios_operator.cluster.absent import Absent
from helios_operator.cluster.apply import ClusterHands, Tools
from helios_operator.cluster.belongings import Belongings
from helios_operator.cluster.client import Client
from helios_operator.cluster.controls import Controls
from helios_operator.cluster.events import Events
from helios_operator.cluster.kinds import DEPLOYMENT, POD, SECRET, Kind, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.observe import Observer
from helios_operator.cluster.profiles import Profiles
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.refusals import Refusals
from helios_operator.cluster.revisions import Revisions
from helios_operator.cluster.shortfalls import Shortfalls
from helios_operator.cluster.status import StatusWriter
from helios_operator.cluster.statuses import Statuses
from helios_operator.cluster.surroundings import Surroundings, readable_token
from helios_operator.decide import Policy, decide
from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Revision, Snapshot
from helios_operator.errors import ClusterError, UnsupportedError
from helios_operator.passes import caretaking
from helios_operator.passes.hands import carry_out, do
from helios_operator.passes.line import Changed
from helios_operator.passes.unread import Sight, named
from helios_operator.render import names
from helios_operator.render.installation import Installation

_UNPROCESSABLE = (400, 422)
"""The API server's answers to a manifest that is wrong: the user's template made it so."""
_OTHER_RELEASE = "run the operator that wrote it, or correct it with kubectl edit --subresource=status"


@dataclass(frozen=True)
class Passed:
    """What was seen and decided. `wrote`: something was written."""

    snapshot: Snapshot
    plan: Plan
    wrote: bool


class Passes:
    def __init__(
        self, client: Client, mirror: Mirror, by: Installation, budget: Kind, policy: Policy
    ) -> None:
        self._mirror = mirror
        self._policy = policy
        self._reads = Reads(client)
        self._controls = Controls()
        self._events = Events(client)
        self._refusals = Refusals(self._events)
        self._belongings = Belongings(client, mirror, self._reads)
        self._shortfalls = Shortfalls(client, mirror, self._refusals)
        self._absent = Absent(self._reads, self._refusals)
        statuses = Statuses(client)
        self._status = StatusWriter(statuses, mirror, self._events)
        self._surroundings = Surroundings(self._belongings, self._refusals, mirror, self._reads, by, budget)
        self._revisions = Revisions(mirror, self._reads, self._controls)
        self._observer = Observer(mirror, self._reads, self._revisions)
        self._tools = Tools(
            self._belongings,
            self._refusals,
            mirror,
            self._reads,
            by,
            self._surroundings,
            Profiles(client, mirror),
            statuses,
            self._status,
            self._events,
        )
        self._admitted: dict[str, tuple[int, Any]] = {}

    async def make(self, obj: Object, changed: Changed) -> Passed | None:
        """None: nothing could be decided, and the object says why. `changed`: called when a pod answered."""
        now = datetime.now(UTC)
        try:
            hd = self._admit(obj)
        except Invalid as error:
            wrong, problem = Reason.INVALID_SPEC, _problems(error)
        except Malformed as error:
            wrong, problem = Reason.STATUS_UNREADABLE, f"{error}; {_OTHER_RELEASE}"
        else:
            try:
                return await self._work(hd, changed, now)
            except (Invalid, UnsupportedError) as error:
                wrong, problem = Reason.INVALID_SPEC, _problems(error)
            except ClusterError as error:
                if error.status not in _UNPROCESSABLE:
                    raise
                wrong, problem = Reason.INVALID_SPEC, f"{error.field}: {error.problem}"
        await self._take_care(obj, wrong, problem, changed, now)
        return None

    async def fail(self, obj: Object, problem: str) -> None:
        """The pass could not be made: what is said of the object is not said of yesterday."""
        hd, before = caretaking.stub(obj), obj.get("status") or {}
        told = caretaking.unready(obj, before, Reason.PASS_FAILED, problem, datetime.now(UTC))
        await self._events.say(hd, events.WARNING, Reason.PASS_FAILED, problem)
        await self._status.write_document(hd, told)

    def forget(self, uid: str) -> None:
        """A HeliosDeployment that is gone."""
        self._admitted.pop(uid, None)
        self._belongings.forget(uid)
        self._refusals.forget(uid)
        self._status.forget(uid)
        self._events.forget(uid)

    async def drop_stale(self) -> None:
        await self._controls.keep_only({pod["metadata"]["uid"] for pod in self._mirror.all(POD)})
        self._reads.drop_stale()
        self._observer.drop_stale()
        self._shortfalls.drop_stale()
        self._absent.drop_stale()

    async def close(self) -> None:
        await self._controls.close()

    # -- how ------------------------------------------------------------------------------------------------

    def _admit(self, obj: Object) -> Deployment:
        """By the rules of today: the object may be older than they are. Once per generation."""
        uid, generation = obj["metadata"]["uid"], obj["metadata"].get("generation", 0)
        known = self._admitted.get(uid)
        if known is None or known[0] != generation:
            bare = {key: value for key, value in obj.items() if key != "status"}
            known = self._admitted[uid] = (generation, validation.admit(bare)["spec"])
        return parse.deployment({**obj, "spec": known[1]})

    async def _work(self, hd: Deployment, changed: Changed, now: datetime) -> Passed:
        self._refusals.begin(hd)
        token = await self._surroundings.ensure(hd)
        sight = await self._observer.observe(hd, token, now)
        await self._shortfalls.note(hd)
        await self._absent.note(hd, has_pods=bool(sight.snapshot.revisions))
        try:
            plan = named(decide(sight.snapshot, now, self._policy), sight)
            wrote = await self._apply(plan, sight)
        finally:  # whatever becomes of the plan, pods are told what the documents say that stand
            await self._revisions.settle(hd, sight.snapshot.revisions, changed)
        return Passed(sight.snapshot, plan, wrote)

    async def _apply(self, plan: Plan, sight: Sight) -> bool:
        hands = ClusterHands(self._tools, sight.snapshot)
        await hands.restore_limits()
        return await carry_out(plan, hands)

    async def _take_care(
        self, obj: Object, reason: Reason, problem: str, changed: Changed, now: datetime
    ) -> None:
        """It goes on as it is, and says why nothing more is done."""
        hd = caretaking.stub(obj)
        revisions = await self._revisions.see(hd, await self._token(hd))
        await self._end_old(obj, hd, revisions, now)
        obj = self._mirror.get(DEPLOYMENT, hd.namespace, hd.name) or obj
        told = caretaking.unready(obj, caretaking.seen(obj, revisions, now), reason, problem, now)
        if await self._status.write_document(hd, told):
            await self._events.say(hd, events.WARNING, reason, problem)
        await self._revisions.settle(hd, revisions, changed)

    async def _end_old(
        self, obj: Object, hd: Deployment, revisions: Sequence[Revision], now: datetime
    ) -> None:
        hands = ClusterHands(self._tools, caretaking.snapshot(hd, revisions))
        for action in caretaking.drains(obj, revisions, now):
            await do(action, hands)

    async def _token(self, hd: Deployment) -> str:
        """Of the Control ports; "" where there is none."""
        found = await self._reads.get(SECRET, hd.namespace, names.control_token(hd.name))
        return readable_token(hd, found) if found else ""


def _problems(error: Invalid | UnsupportedError) -> str:
    return "; ".join(map(str, error.problems)) if isinstance(error, Invalid) else str(error)
