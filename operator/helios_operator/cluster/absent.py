"""Secrets and ConfigMaps that pods and Jobs would wait for: named by their fields before anything starts.

Called at every pass while nothing serves; afterwards what becomes of new pods says it. A kubelet tells of a
missing volume in events alone, and of a variable in its own words. Of a Secret it keeps the names of its
keys, for a few seconds, and no value.
"""

from __future__ import annotations

import time

from helios_operator.api.conditions import ConditionType
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Deployment
from helios_operator.cluster.kinds import CONFIG_MAP, SECRET, Kind
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.refusals import Refusal, Refusals
from helios_operator.cluster.secrets import check_secrets
from helios_operator.render import references
from helios_operator.render.references import Reference

_KINDS = {"Secret": SECRET, "ConfigMap": CONFIG_MAP}
_SECONDS = 5.0
"""Between two looks at an object: somebody may be about to make it."""


class Absent:
    def __init__(self, reads: Reads, refusals: Refusals) -> None:
        self._reads = reads
        self._refusals = refusals
        self._known: dict[tuple[Kind, str, str], tuple[float, frozenset[str] | None]] = {}

    async def note(self, hd: Deployment, *, has_pods: bool) -> None:
        """`has_pods`: made with the Secrets of the service, which were looked at then."""
        if hd.status.active is not None:
            return
        if not has_pods:
            await self._refusals.attempt(
                hd, "Secrets of the service", lambda: check_secrets(hd, self._reads), ConditionType.AVAILABLE
            )
        for each in references.needed(hd):
            if problem := await self._problem(hd.namespace, each):
                refusal = Refusal(Reason.INVALID_SPEC, f"{each.field}: {problem}", ConditionType.AVAILABLE)
                await self._refusals.note(hd, f"{each.kind} {each.name} of {each.field}", refusal)

    def drop_stale(self) -> None:
        now = time.monotonic()
        self._known = {at: kept for at, kept in self._known.items() if kept[0] > now}

    async def _problem(self, namespace: str, wanted: Reference) -> str:
        """ "" where there is none."""
        what = f"{wanted.kind} {wanted.name}"
        keys = await self._keys(_KINDS[wanted.kind], namespace, wanted.name)
        if keys is None:
            return f"{what} does not exist; create it in {namespace}"
        missing = [key for key in wanted.keys if key not in keys]
        return f"{what} holds no {' and no '.join(missing)}; add what it lacks" if missing else ""

    async def _keys(self, kind: Kind, namespace: str, name: str) -> frozenset[str] | None:
        at = (kind, namespace, name)
        until, keys = self._known.get(at, (0.0, None))
        if time.monotonic() >= until:
            found = await self._reads.get(kind, namespace, name)
            if kind is SECRET:
                self._reads.forget(kind, namespace, name)
            held = {**(found.get("data") or {}), **(found.get("binaryData") or {})} if found else None
            keys = None if held is None else frozenset(held)
            self._known[at] = (time.monotonic() + _SECONDS, keys)
        return keys
