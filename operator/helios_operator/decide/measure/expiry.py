"""Rows of the history table that nobody will look at any more.

Called by `profiling`; those of tasks go by `task_jobs`. It must not take a row that is in use.
"""

from __future__ import annotations

from collections.abc import Iterator

from helios_operator.api.event_reasons import EventReason
from helios_operator.decide.facts.precisions import ORDER
from helios_operator.decide.plan import Action, DeleteProfile, Verdict
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh.options import Bench


def quality_rows(snapshot: Snapshot, bench: Bench, prompts: str) -> Iterator[Action]:
    """Quality rows beyond the history limit of each precision, oldest first, none that is in use."""
    limit = snapshot.deployment.spec.profiling.history_limit
    active = snapshot.deployment.status.active
    for contender in bench.contenders:
        for row in (row for p in ORDER for row in contender.qualities_at(p)[limit:]):
            if row.identity.prompts_digest != prompts and not (active and active.quality == row.name):
                message = f"older than the {limit} newest of {contender.name}"
                yield DeleteProfile(name=row.name, why=Verdict(True, EventReason.ROW_EXPIRED, message))
