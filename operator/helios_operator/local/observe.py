"""The store, the processes and the pods' telemetry, as one Snapshot: what a pass sees.

Called by the runtime. Waits for pods are bounded; a pod that does not answer is seen without telemetry. It
reads and changes nothing, and computes nothing that a decision could compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api import identity, parse
from helios_operator.api.rows import QualityRow, TasksRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide.snapshot import PromptSource, Snapshot
from helios_operator.local.site import Machine, Site
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT, MODEL, PROFILE, Store
from helios_operator.passes import tasks
from helios_operator.passes.prompts import texts
from helios_operator.passes.unread import Reader, Sight, Source, not_served


class Observer:
    """Profiles rarely change and are looked at every pass: each is read when it changed."""

    def __init__(self, store: Store, machine: Machine) -> None:
        self._store = store
        self._machine = machine
        self._reader = Reader()

    async def observe(self, site: Site, claimed_mib: int) -> Sight:
        """`claimed_mib`: memory of all pods on the machine, those of other deployments included. Malformed:
        the deployment's status is of another release."""
        revisions = await site.revisions.see()
        deployment = self._deployment(site)  # after: it may have been annotated while pods were asked
        rows, unread = self._reader.rows(self._sources(PROFILE))
        models, unknown = self._reader.models(self._sources(MODEL))
        not_served(deployment, models, unknown)
        snapshot = Snapshot(
            deployment=deployment,
            hardware=self._machine.hardware,
            free_memory_mib=self._machine.memory_mib - claimed_mib,
            performance_version=PERFORMANCE_VERSION,
            models=tuple(models),
            timings=tuple(row for row in rows if isinstance(row, TimingRow)),
            qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
            task_rows=tuple(row for row in rows if isinstance(row, TasksRow)),
            jobs=site.jobs.see(),
            revisions=revisions,
            prompts=self._prompt_source(deployment),
            tasks=tasks.seen(deployment.spec.profiling.tasks, self._tasks_in_config_map(deployment)),
        )
        return Sight(snapshot, (*unread, *unknown))

    def given_prompts(self, deployment: Deployment) -> tuple[str, ...]:
        """The prompts that the spec gives, inline or by a ConfigMap; none for live ones."""
        prompts = deployment.spec.profiling.prompts
        if prompts.config_map_ref is None:
            return prompts.inline
        found = self._store.find(CONFIG_MAP, prompts.config_map_ref.name)
        text = str((found or {}).get("data", {}).get(prompts.config_map_ref.key, ""))
        return texts(text)

    def given_tasks(self, deployment: Deployment) -> str:
        """The text that a Job reads; "" where the spec gives none."""
        source = deployment.spec.profiling.tasks
        return tasks.text_of(source, self._tasks_in_config_map(deployment)) if source else ""

    def tasks_digest(self, deployment: Deployment) -> str:
        """Of the tasks that the spec gives; "" where it gives none that can be read."""
        found = tasks.seen(deployment.spec.profiling.tasks, self._tasks_in_config_map(deployment))
        return found.digest if found else ""

    def _tasks_in_config_map(self, deployment: Deployment) -> str | None:
        source = deployment.spec.profiling.tasks
        ref = source.config_map_ref if source else None
        data = ((self._store.find(CONFIG_MAP, ref.name) or {}).get("data") or {}) if ref else {}
        return str(data[ref.key]) if ref and ref.key in data else None

    def _deployment(self, site: Site) -> Deployment:
        deployment = parse.deployment(self._store.get(DEPLOYMENT, site.name))
        if deployment.spec.limits.memory_mib is not None or not self._machine.memory_given:
            return deployment
        limits = replace(deployment.spec.limits, memory_mib=self._machine.memory_mib)
        return replace(deployment, spec=replace(deployment.spec, limits=limits))

    def _prompt_source(self, deployment: Deployment) -> PromptSource | None:
        prompts = self.given_prompts(deployment)
        return PromptSource(identity.prompts_digest(prompts), len(prompts)) if prompts else None

    def _sources(self, kind: str) -> Iterator[Source]:
        for name in self._store.names(kind):
            version, get = self._store.version(kind, name), partial(self._store.get, kind, name)
            yield Source(kind, name, (kind, name), version, get)
