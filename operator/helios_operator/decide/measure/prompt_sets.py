"""On which prompts all are to be measured: given ones, a set of live ones, or, of both, the given ones until
there is a first live set.

Called by `profiling`. It must not measure, and never sees a prompt: sets are known by their digests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from helios_operator.api.rows import RowPhase
from helios_operator.decide.facts import prompts
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import newest_common
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.measure.missing import Missing
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, Snapshot


@dataclass(frozen=True)
class PromptSets:
    """`competing`: candidates that are to be measured."""

    snapshot: Snapshot
    competing: tuple[Contender, ...]
    missing: Missing
    fleet: Fleet
    now: datetime

    @property
    def quality_possible(self) -> bool | None:
        """True: there are prompts; False: there never will be; None: live ones are still being collected."""
        if not self._takes_live:
            return self.snapshot.prompts is not None
        return True if self.digest else None

    @cached_property
    def digest(self) -> str:
        """Of the prompts that all are to be measured on; "" while there are none. A set is left for a newer
        one only when a reassessment asks for it, or a candidate has no row on it; given prompts, for the
        first live set."""
        if not self._takes_live:
            return self._given
        if asked := self.snapshot.deployment.status.reassessment.prompts:
            return asked
        for job in self.snapshot.jobs:
            if job.spec.kind is JobKind.QUALITY and self._is_under_way(job):
                return job.spec.prompts_digest
        return self._measured() or self._half_measured() or self._newest_live_set() or self._first()

    def what_is_awaited(self) -> str:
        """A pod keeps no shorter ones (`helios_server.telemetry.prompts`): traffic alone may not do."""
        ref = self.snapshot.deployment.spec.profiling.prompts.config_map_ref
        gone = f"; {prompts.absent(self.snapshot)}" if ref and self.snapshot.prompts is None else ""
        return f"live prompts are being collected: {self._first_live}of 8 tokens or more{gone}"

    def what_may_follow(self) -> str:
        """ "" where all are measured on what shall count."""
        if not (self._takes_live and self._given and self.digest == self._given):
            return ""
        return f"on the given prompts, until live ones are collected: {self._first_live}of 8 tokens or more"

    @property
    def _first_live(self) -> str:
        live = self.snapshot.deployment.spec.profiling.prompts.live
        return f"the first {live.max_prompts} " if live else ""

    @property
    def _takes_live(self) -> bool:
        return self.snapshot.deployment.spec.profiling.prompts.takes_live

    @property
    def _given(self) -> str:
        return self.snapshot.prompts.digest if self.snapshot.prompts else ""

    def _measured(self) -> str:
        """Live prompts on which all were scored."""
        policy = self.missing.policy
        measured = [c for c in self.competing if c.resolved and not self.missing.failed_lately(c)]
        common = newest_common(measured, self.now, policy)
        if (
            common
            and common.prompts_digest != self._given
            and len(common.contenders) == len(measured)
            and all(self.missing.is_scored(c, common.prompts_digest) for c in measured)
        ):
            return common.prompts_digest
        return ""

    def _half_measured(self) -> str:
        """Prompts on which some candidate was just measured: the others are measured on the same, while pods
        hold them. A failure there means that they do not any more."""
        since = self.now - self.missing.policy.set_lifetime
        rows = [row for c in self.competing for row in c.qualities if row.completed]
        recent = [row for row in rows if row.completed and row.completed > since]
        broken = {row.identity.prompts_digest for row in rows if row.phase is RowPhase.FAILED}
        usable = [row for row in recent if row.identity.prompts_digest not in {*broken, self._given}]
        newest = max(usable, key=lambda row: (row.completed, row.name), default=None)
        return newest.identity.prompts_digest if newest else ""

    def _newest_live_set(self) -> str:
        sets = [
            pod.telemetry.prompts for pod in self.fleet.ready_pods if pod.telemetry and pod.telemetry.prompts
        ]
        return next((found.digest for found in sets if found.digest), "")

    def _first(self) -> str:
        """Given prompts, as long as no candidate was measured on others after them."""
        measured_later = (
            row.phase is RowPhase.COMPLETE and row.completed and row.completed > since
            for contender in self.competing
            if (first := contender.quality_on(self._given)) and (since := first.completed)
            for row in contender.qualities
            if row.identity.prompts_digest != self._given
        )
        return "" if any(measured_later) else self._given

    def _is_under_way(self, job: Job) -> bool:
        """Until what it measured stands in the table."""
        known = {row.name for row in self.snapshot.qualities}
        return job.phase is JobPhase.RUNNING or any(row.name not in known for row in job.quality)
