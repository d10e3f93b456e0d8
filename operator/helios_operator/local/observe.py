"""The store, the processes and the pods' telemetry, as one Snapshot: what a pass sees.

Called by the runtime. Waits for pods are bounded; a pod that does not answer is seen without telemetry. It
reads and changes nothing, and computes nothing that a decision could compute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api import identity, parse
from helios_operator.api.rows import QualityRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide.snapshot import PromptSource, Snapshot
from helios_operator.local.site import Machine, Site
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT, MODEL, PROFILE, Store
from helios_operator.passes.prompts import texts


class Observer:
    """Keeps what it parsed while the object's version stays: profiles rarely change and are looked at every
    pass."""

    def __init__(self, store: Store, machine: Machine) -> None:
        self._store = store
        self._machine = machine
        self._parsed: dict[tuple[str, str], tuple[str, Any]] = {}

    async def observe(self, site: Site, claimed_mib: int) -> Snapshot:
        """`claimed_mib`: memory of all pods on the machine, those of other deployments included."""
        revisions = await site.revisions.see()
        deployment = self._deployment(site)  # after: it may have been annotated while pods were asked
        rows = self._rows()
        return Snapshot(
            deployment=deployment,
            hardware=self._machine.hardware,
            free_memory_mib=self._machine.memory_mib - claimed_mib,
            performance_version=PERFORMANCE_VERSION,
            models=tuple(self._cached(MODEL, name, parse.model) for name in self._store.names(MODEL)),
            timings=tuple(row for row in rows if isinstance(row, TimingRow)),
            qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
            jobs=site.jobs.see(),
            revisions=revisions,
            prompts=self._prompt_source(deployment),
        )

    def given_prompts(self, deployment: Deployment) -> tuple[str, ...]:
        """The prompts that the spec gives, inline or by a ConfigMap; none for live ones."""
        prompts = deployment.spec.profiling.prompts
        if prompts.config_map_ref is None:
            return prompts.inline
        found = self._store.find(CONFIG_MAP, prompts.config_map_ref.name)
        text = str((found or {}).get("data", {}).get(prompts.config_map_ref.key, ""))
        return texts(text)

    def _deployment(self, site: Site) -> Deployment:
        deployment: Deployment = self._cached(DEPLOYMENT, site.name, parse.deployment)
        if deployment.spec.limits.memory_mib is not None or not self._machine.memory_given:
            return deployment
        limits = replace(deployment.spec.limits, memory_mib=self._machine.memory_mib)
        return replace(deployment, spec=replace(deployment.spec, limits=limits))

    def _prompt_source(self, deployment: Deployment) -> PromptSource | None:
        prompts = self.given_prompts(deployment)
        return PromptSource(identity.prompts_digest(prompts), len(prompts)) if prompts else None

    def _rows(self) -> list[TimingRow | QualityRow]:
        return [self._cached(PROFILE, name, parse.profile_row) for name in self._store.names(PROFILE)]

    def _cached(self, kind: str, name: str, parse_it: Any) -> Any:
        version = self._store.version(kind, name)
        known = self._parsed.get((kind, name))
        if known is None or known[0] != version:
            known = (version, parse_it(self._store.get(kind, name)))
            self._parsed[kind, name] = known
        return known[1]
