"""The revisions of a HeliosDeployment as decisions see them: Deployments, their limits documents, their pods.

Called by `observe`, which reads, and at the end of a pass to settle: pods are told of limits that they lack,
after the document stands in the API. It creates and deletes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from helios_contract.limits import Limits

from helios_operator.api.timestamps import parse_time
from helios_operator.api.types import Deployment
from helios_operator.cluster import pods
from helios_operator.cluster.controls import Controls
from helios_operator.cluster.kinds import CONFIG_MAP, POD, REVISION, Object
from helios_operator.cluster.mirror import Mirror, belongs_to
from helios_operator.cluster.ownership import is_own
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.route import routed
from helios_operator.decide.snapshot import Pod, Revision
from helios_operator.errors import StateError
from helios_operator.passes.line import Changed
from helios_operator.render import labels, names, volumes
from helios_operator.render.configmap import limits_of
from helios_operator.render.template_hash import template_hash


class Revisions:
    def __init__(self, mirror: Mirror, reads: Reads, controls: Controls) -> None:
        self._mirror = mirror
        self._reads = reads
        self._controls = controls

    async def see(self, hd: Deployment, token: str) -> tuple[Revision, ...]:
        """Those that are not being deleted, by number. StateError: the document of one is damaged, and no pod
        of it answers."""
        route = routed(hd, self._mirror)
        objects = [o for o in self._mirror.of(REVISION, (hd.namespace, hd.name)) if belongs_to(o, hd.uid)]
        seen = await asyncio.gather(*(self._see(obj, hd, route, token) for obj in objects))
        return tuple(sorted((r for r in seen if r is not None), key=lambda revision: revision.number))

    async def settle(self, hd: Deployment, seen: Iterable[Revision], changed: Changed) -> None:
        """Tells the pods that were reached what their revision's document says by now."""
        for revision in seen:
            if self._mirror.get(REVISION, hd.namespace, names.revision(hd.name, revision.number)) is None:
                continue
            limits, _ = await self._document(hd, revision.number)
            if limits is not None:
                for pod in revision.pods:
                    self._tell(hd, pod, limits, changed)

    def _tell(self, hd: Deployment, pod: Pod, limits: Limits, changed: Changed) -> None:
        known = self._mirror.get(POD, hd.namespace, pod.name)
        if known is not None and pod.telemetry is not None:
            self._controls.tell(known["metadata"]["uid"], limits, pod.telemetry, changed)

    async def _see(self, obj: Object, hd: Deployment, route: int | None, token: str) -> Revision | None:
        number = number_of(obj)
        if number is None or obj["metadata"].get("deletionTimestamp"):
            return None
        limits, damage = await self._document(hd, number)
        objects = [pod for pod in self._mirror.of(POD, (hd.namespace, hd.name)) if number_of(pod) == number]
        its_pods = await asyncio.gather(*(self._see_pod(pod, number, token) for pod in objects))
        limits = limits or _reported(its_pods)
        if limits is None and damage is not None:
            raise damage  # what serves must not be taken for something that was given up
        if limits is None:
            return None  # its document was deleted, and no pod remembers it: it can only be replaced
        annotations = obj["metadata"].get("annotations") or {}
        return Revision(
            number=number,
            limits=limits,
            replicas=int(obj["spec"].get("replicas", 1)),
            created=parse_time(obj["metadata"]["creationTimestamp"]),
            routed=number == route,
            draining=labels.DRAINING in annotations,
            pods=tuple(its_pods),
            claims=volumes.mounted(obj["spec"]["template"]),
            template_current=annotations.get(labels.TEMPLATE_HASH) == template_hash(hd),
        )

    async def _document(self, hd: Deployment, number: int) -> tuple[Limits | None, StateError | None]:
        """What it says, or why it says nothing: it is damaged."""
        found = await self._reads.get(CONFIG_MAP, hd.namespace, names.revision(hd.name, number))
        try:
            return limits_of(found) if found and is_own(hd, found) else None, None
        except StateError as damage:
            return None, damage

    async def _see_pod(self, obj: Object, revision: int, token: str) -> Pod:
        uid, host = obj["metadata"]["uid"], pods.address(obj)
        return Pod(
            name=obj["metadata"]["name"],
            revision=revision,
            phase=pods.phase(obj),
            ready=pods.is_ready(obj),
            started=pods.started(obj),
            restarts=pods.restarts(obj),
            message=pods.message(obj),
            telemetry=await self._controls.look(uid, host, token) if host else None,
        )


def number_of(obj: Object) -> int | None:
    """Of a revision's Deployment or pod."""
    text = (obj["metadata"].get("labels") or {}).get(labels.REVISION, "")
    return int(text) if text.isdigit() else None


def _reported(its_pods: list[Pod]) -> Limits | None:
    return next((pod.telemetry.limits for pod in its_pods if pod.telemetry), None)
