"""Who gets an accelerator when there are few: measuring before serving, and judging on the CPU beside it.

Called by `profiling` before a Job starts and by `starting` before the first pod does. Where pods ask for no
accelerator, everything here says yes. It must not count devices: the snapshot tells how many are free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.facts.precisions import WITH_FP8
from helios_operator.decide.snapshot import JobKind, JobPhase, JobSpec, Snapshot

TAKEN = "no accelerator is free: it runs when one is, or while spec.replicas is 0"
_IN_TURN = "the accelerators are reserved for earlier Jobs"


@dataclass(frozen=True)
class Accelerators:
    """Who has them, and who may."""

    free: int | None
    """For one pod or Job each. None: they ask for none."""
    pods: int
    """That serve, or are to."""
    serving: bool
    """Pods of this deployment have some, or wait for them."""
    measuring: bool
    """The same of its Jobs."""

    @classmethod
    def of(cls, snapshot: Snapshot, fleet: Fleet) -> Accelerators:
        revisions = [revision for revision in (fleet.routed, fleet.pending) if revision and revision.replicas]
        missing = sum(max(0, revision.replicas - len(revision.pods)) for revision in revisions)
        free = snapshot.accelerators_free
        return cls(
            free=None if free is None else max(0, free - missing),
            pods=max(1, snapshot.deployment.spec.replicas),
            serving=bool(revisions),
            measuring=any(job.phase is JobPhase.RUNNING and _needs_one(job.spec) for job in snapshot.jobs),
        )

    def beside(self, started: Iterable[JobSpec]) -> Accelerators:
        """What is left when these Jobs have theirs too."""
        taken = sum(_needs_one(spec) for spec in started)
        if self.free is None or not taken:
            return self
        return replace(self, free=max(0, self.free - taken), measuring=True)

    def place(self, spec: JobSpec) -> JobSpec:
        """Quality is the same wherever it is computed, so it leaves the last accelerators to serving; but for
        a precision that no CPU has."""
        spared = 0 if self.serving else self.pods
        on_cpu = spec.kind in _ANYWHERE and self.free is not None and self.free <= spared
        return replace(spec, on_cpu=on_cpu and not is_of_accelerators(spec))

    def hold(self, spec: JobSpec) -> str:
        """Why a Job must wait. One that waits for a node is good only while nothing else of this deployment
        runs: then it asks the cluster for one."""
        if self.free != 0 or not _needs_one(spec):
            return ""
        return _IN_TURN if self.measuring else TAKEN if self.serving else ""

    @property
    def measures_first(self) -> bool:
        """Pods would take the last ones, and what must be timed could not be any more."""
        return self.free is not None and self.free <= self.pods


_ANYWHERE = (JobKind.QUALITY, JobKind.TASKS)
"""What they find is the same wherever it is computed."""


def is_of_accelerators(spec: JobSpec) -> bool:
    """It measures a precision that no CPU has."""
    measured = (*spec.precisions, *(option.precision for option in spec.options))
    return any(precision in WITH_FP8 for precision in measured)


def _needs_one(spec: JobSpec) -> bool:
    return spec.kind is JobKind.TIMING or (spec.kind in _ANYWHERE and not spec.on_cpu)
