"""The mirror, a few objects read by name and the pods' telemetry, as one Snapshot: what a pass sees.

Called by `operator`. Waits for pods are bounded; a pod that does not answer is seen without telemetry. It
reads and changes nothing, and computes nothing that a decision could compute.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api import identity, parse
from helios_operator.api.rows import QualityRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.cluster import jobs, nodes
from helios_operator.cluster.candidates import candidates_of, unreachable
from helios_operator.cluster.kinds import CONFIG_MAP, MODEL, PROFILE, Kind, Object, version_of
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.revisions import Revisions
from helios_operator.decide.snapshot import PromptSource, Snapshot
from helios_operator.passes.prompts import texts


class Observer:
    """Keeps what it parsed while the object's version stays."""

    def __init__(self, mirror: Mirror, reads: Reads, revisions: Revisions) -> None:
        self._mirror = mirror
        self._reads = reads
        self._revisions = revisions
        self._load = nodes.Load(mirror)
        self._parsed: dict[tuple[Kind, str], tuple[int, Any]] = {}

    async def observe(self, hd: Deployment, token: str, now: datetime) -> Snapshot:
        hd = _with_memory(hd)
        hardware = nodes.hardware(hd, self._mirror)
        revisions = await self._revisions.see(hd, token)
        pod_mib = hd.spec.limits.memory_mib or hardware.memory_mib
        room = nodes.room(hd, self._mirror, self._load, pod_mib)
        rows = [
            self._parse(PROFILE, obj, parse.profile_row) for obj in self._mirror.all(PROFILE, hd.namespace)
        ]
        models = tuple(self._parse(MODEL, obj, parse.model) for obj in self._mirror.all(MODEL, hd.namespace))
        lost = await unreachable(hd, models, self._reads, now)
        return Snapshot(
            deployment=hd,
            hardware=hardware,
            free_memory_mib=room.pods * pod_mib if room.pods else min(room.free_mib, pod_mib - 1),
            performance_version=PERFORMANCE_VERSION,
            models=models,
            timings=tuple(row for row in rows if isinstance(row, TimingRow)),
            qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
            jobs=lost + jobs.see(hd, candidates_of(hd, models), self._mirror, hardware, now),
            revisions=revisions,
            prompts=await self._prompt_source(hd),
            accelerators_free=room.pods if hardware.accelerators else None,
        )

    async def _prompt_source(self, hd: Deployment) -> PromptSource | None:
        given = await self._given_prompts(hd)
        return PromptSource(identity.prompts_digest(given), len(given)) if given else None

    async def _given_prompts(self, hd: Deployment) -> tuple[str, ...]:
        """Inline or by a ConfigMap; none for live ones."""
        prompts = hd.spec.profiling.prompts
        if prompts.config_map_ref is None:
            return prompts.inline
        found = await self._reads.get(CONFIG_MAP, hd.namespace, prompts.config_map_ref.name)
        data = (found or {}).get("data") or {}
        return texts(str(data.get(prompts.config_map_ref.key, "")))

    def _parse(self, kind: Kind, obj: Object, parse_it: Any) -> Any:
        uid, version = obj["metadata"]["uid"], version_of(obj)
        known = self._parsed.get((kind, uid))
        if known is None or known[0] != version:
            known = self._parsed[kind, uid] = (version, parse_it(obj))
        return known[1]

    def drop_stale(self) -> None:
        """What was parsed of objects that are gone; called at every resync."""
        there = {obj["metadata"]["uid"] for kind in (PROFILE, MODEL) for obj in self._mirror.all(kind)}
        self._parsed = {key: value for key, value in self._parsed.items() if key[1] in there}


def _with_memory(hd: Deployment) -> Deployment:
    """`limits.memoryMiB` is the pod's own memory limit where the spec leaves it open."""
    limit = nodes.memory_limit_mib(hd)
    if hd.spec.limits.memory_mib is not None or limit is None:
        return hd
    return replace(hd, spec=replace(hd.spec, limits=replace(hd.spec.limits, memory_mib=limit)))
