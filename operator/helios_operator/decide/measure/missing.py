"""What the history table lacks of a backbone: which precisions, on which prompts, and in how many Jobs.

Called by `profiling`, which says in which order backbones come and when a Job may start. What failed lately
is not missing: it is tried again with patience. It must not start anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile

from helios_contract.serves import REFERENCE, Precision

from helios_operator.api.annotations import newest_request
from helios_operator.api.rows import RowPhase
from helios_operator.decide.facts.candidates import Contender, timing_identity
from helios_operator.decide.facts.precisions import ORDER, WITH_FP8
from helios_operator.decide.measure import jobs, sizes
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Job, JobPhase, JobSpec, Snapshot
from helios_operator.decide.weigh.options import Bench

Family = tuple[Contender, ...]
"""All candidates on a backbone."""


@dataclass(frozen=True)
class Missing:
    snapshot: Snapshot
    bench: Bench
    now: datetime

    @property
    def policy(self) -> Policy:
        return self.bench.policy

    # -- Jobs ------------------------------------------------------------------------------------------------

    def timings(self, family: Family) -> Iterator[JobSpec]:
        missing = tuple(p for p in self.timed_of(family) if self._lacks_timing(family[0], p))
        kinds = timing_identity(family, self.snapshot).head_kinds
        make = partial(jobs.timing_job, family, self.snapshot)
        yield from self._in_jobs(make, missing, lambda group: sizes.timings_fit(kinds, len(group)))

    def qualities(self, family: Family, prompts: str) -> Iterator[JobSpec]:
        """On the prompts of that digest, of what is timed by now. What no CPU has is not scored with others,
        which need no accelerator."""
        for lacking, missing in self._unscored(family, prompts):
            make = partial(jobs.quality_job, lacking, prompts)
            if self.snapshot.accelerators_free is not None:
                alone = tuple(p for p in missing if p in WITH_FP8)
                yield from (make((precision,)) for precision in alone)
                missing = tuple(p for p in missing if p not in alone)
            yield from self._in_jobs(make, missing, partial(self._is_short, lacking))

    def _is_short(self, family: Family, group: tuple[Precision, ...]) -> bool:
        """The reference stands in every Quality Job."""
        return sizes.quality_fits(family, self._most_prompts, len({REFERENCE, *group}))

    def _in_jobs(
        self,
        make: Callable[[tuple[Precision, ...]], JobSpec],
        missing: tuple[Precision, ...],
        fits: Callable[[tuple[Precision, ...]], bool],
    ) -> Iterator[JobSpec]:
        """As few Jobs as have results that are short enough; one each of those that failed as one. What a Job
        is at already is left to it, though it was begun when other things were missing."""
        under_way = {p: job.spec for p in missing if (job := self._under_way(make((p,)), missing))}
        yield from {spec.name: spec for spec in under_way.values()}.values()
        rest = tuple(precision for precision in missing if precision not in under_way)
        alone = tuple(p for p in rest if self._has_failed_with_others(make((p,))))
        yield from (make((precision,)) for precision in alone)
        for group in _grouped((p for p in rest if p not in alone), fits):
            yield make(group)

    def _under_way(self, wanted: JobSpec, missing: tuple[Precision, ...]) -> Job | None:
        """A Job for this precision, among several that were asked for."""
        for job in self.snapshot.jobs:
            of_several = len(missing) > 1 or jobs.is_of_several(job.spec)
            is_for_it = job.spec.kind is wanted.kind and set(wanted.rows) <= set(job.spec.rows)
            if of_several and is_for_it and job.phase is not JobPhase.FAILED:
                return job
        return None

    def _has_failed_with_others(self, wanted: JobSpec) -> bool:
        """Nobody knows which precision it was."""
        return any(
            jobs.is_of_several(job.spec)
            and set(wanted.rows) <= set(job.spec.rows)
            and jobs.exhausted(job, self.snapshot)
            for job in self.snapshot.jobs
        )

    def _unscored(self, family: Family, prompts: str) -> Iterator[tuple[Family, tuple[Precision, ...]]]:
        """Candidates that lack the same precisions, and which: a Job fills a whole table."""
        lacking: dict[tuple[Precision, ...], Family] = {}
        for contender in family:
            those = tuple(p for p in self.scored_of(family) if self.lacks_quality(contender, prompts, p))
            lacking[those] = (*lacking.get(those, ()), contender)
        yield from ((contenders, those) for those, contenders in lacking.items() if those)

    @property
    def _most_prompts(self) -> int:
        live = self.snapshot.deployment.spec.profiling.prompts.live
        given = self.snapshot.prompts.prompts if self.snapshot.prompts else 0
        return max(given, live.max_prompts if live else 0)

    # -- which -----------------------------------------------------------------------------------------------

    def timed_of(self, family: Family) -> tuple[Precision, ...]:
        """What some candidate may be served in, and the memory may hold. Where it holds none, measuring says
        so better."""
        wanted = tuple(p for p in ORDER if any(p in c.precisions for c in family))
        return tuple(p for p in wanted if any(self._may_hold(c, p) for c in family)) or wanted

    def _may_hold(self, contender: Contender, precision: Precision) -> bool:
        """Candidates of a backbone differ in the depths that they may be served at."""
        return precision in contender.precisions and not self.bench.overfull(contender, precision)

    def scored_of(self, family: Family) -> tuple[Precision, ...]:
        """What is timed, and the reference in any case: the others are compared with it."""
        timed = (p for p in self.timed_of(family) if family[0].timing_at(p))
        return (REFERENCE, *(precision for precision in timed if precision != REFERENCE))

    def is_current(self, contender: Contender, prompts: str) -> bool:
        """Nothing more will be known of it for now; of what failed, the rest is served without it."""
        timed = self.timed_of((contender,))
        if contender.timing is None or any(self._lacks_timing(contender, p) for p in timed):
            return False
        return not prompts or (
            contender.quality_on(prompts) is not None and self.is_scored(contender, prompts)
        )

    def is_scored(self, contender: Contender, prompts: str) -> bool:
        """In every precision, as far as that can be."""
        return not any(self.lacks_quality(contender, prompts, p) for p in self.scored_of((contender,)))

    def left_out(self, contender: Contender) -> Iterator[str]:
        """What its spec allows and nobody will choose, with the reason. What could be measured of nothing
        else is a failure and no omission."""
        if contender.left_out:
            yield contender.left_out
        for precision in contender.precisions:
            if contender.timing is None:
                continue
            if why := self._why_left_out(contender, precision):
                yield f"{precision} ({why})"

    def _why_left_out(self, contender: Contender, precision: Precision) -> str:
        """ "" where it is not, or not yet. What cannot be scored as published stands in the way of all."""
        if contender.timing_at(precision) is None:
            failed = contender.failed_at(precision)
            return self.bench.overfull(contender, precision) or (failed.message if failed else "")
        if precision == REFERENCE or not self.failed_lately(contender, precision):
            return ""
        return contender.qualities_at(precision)[0].message

    # -- what failed -----------------------------------------------------------------------------------------

    def lacks_quality(self, contender: Contender, prompts: str, precision: Precision) -> bool:
        return not contender.quality_on(prompts, precision) and not self.failed_lately(contender, precision)

    def failed_lately(self, contender: Contender, precision: Precision = REFERENCE) -> bool:
        """Its newest row failed. Live prompts may just have been gone, so newer ones are tried soon, but less
        and less so: a broken measurement must not be repeated with every set."""
        rows = contender.qualities_at(precision)
        failures = list(takewhile(lambda row: row.phase is RowPhase.FAILED, rows))
        if not failures:
            return False
        longest, times = self.policy.failed_row_retry, len(failures) - 1
        of_a_set = self.policy.failed_set_retry * self.policy.failed_set_factor**times
        may_be_others = self.snapshot.deployment.spec.profiling.prompts.takes_live
        wait = min(of_a_set, longest) if may_be_others else longest
        return not self._old_enough(failures[0].completed, wait)

    def _lacks_timing(self, contender: Contender, precision: Precision) -> bool:
        failed = contender.failed_at(precision)
        waits = failed is not None and not self._old_enough(failed.completed, self.policy.failed_row_retry)
        return contender.timing_at(precision) is None and not waits

    def _old_enough(self, failed: datetime | None, wait: timedelta) -> bool:
        """To be tried again: by the clock, or because a person asks."""
        if failed is None:
            return False
        request = newest_request(self.snapshot.deployment.annotations)
        return self.now >= failed + wait or (request is not None and request.asked > failed)


def _grouped(
    precisions: Iterable[Precision], fits: Callable[[tuple[Precision, ...]], bool]
) -> Iterator[tuple[Precision, ...]]:
    """In order, as many together as fit; what does not fit at all is alone."""
    group: tuple[Precision, ...] = ()
    for precision in precisions:
        if group and not fits((*group, precision)):
            yield group
            group = ()
        group = (*group, precision)
    if group:
        yield group
