"""What is written down of what serves, is coming and was changed: Served and HistoryEntry.

Called by `rollout`. It must not decide or act.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_server.planning.memory import largest_request

from helios_operator.api.types import Decision, HistoryEntry, Served
from helios_operator.decide.facts import tally
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.quality import whole
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import remedies
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.scene import served_contender

KEPT_HISTORY = 10


def served(revision: Revision, case: Case) -> Served:
    """What the document of a revision says, with the rows of the history table it stands on. The batch is
    what its pods found to fit of it."""
    limits = revision.limits
    capacities = [pod.telemetry.capacity for pod in revision.pods if pod.telemetry]
    found = max((capacity.max_batch_size for capacity in capacities), default=0)
    rows = min(limits.max_batch_size or found, found or limits.max_batch_size)
    described = _described(limits, revision.number, rows, case)
    return replace(described, max_request_tokens=_largest_request(revision, case))


def coming(limits: Limits, number: int, case: Case) -> Served:
    """As predicted."""
    contender = served_contender(limits, case.bench.contenders)
    tokens = (
        case.bench.largest_request(contender, limits.layer_budget, limits.precision, limits.max_batch_size)
        if contender
        else None
    )
    described = _described(limits, number, limits.max_batch_size, case)
    return replace(described, max_request_tokens=tokens)


def renewed(active: Served | None, revision: Revision, case: Case) -> Served | None:
    """The same service with the figures and rows of today."""
    if active is None:
        return None
    now = served(revision, case)
    tokens = now.max_request_tokens or active.max_request_tokens  # while no pod tells
    renewed = replace(now, since=active.since, max_request_tokens=tokens)
    return renewed if same_service(active, now) else active


def lost_room(before: Served | None, after: Served | None) -> str:
    """What callers of the longest requests have to know; "" where none of them becomes too long, or it is not
    known."""
    most = after.max_request_tokens if after else None
    was = before.max_request_tokens if before else None
    if most is None or was is None or most >= was:
        return ""
    return f"the largest request falls from {was} to {most} tokens of prompt and output"


def same_service(one: Served, other: Served) -> bool:
    return one.revision == other.revision and one.answers_as(other)


def entry(case: Case, to: Served, result: str) -> HistoryEntry:
    """Of the change that ends now. The stopgap before the first selection is not something that was left."""
    status, memory = case.snapshot.deployment.status, case.memory
    kind = memory.decision if memory.decision in remedies.CHANGES else Decision.SELECT
    started = status.rollout.start_time if status.rollout else None
    before = status.active or (status.history[-1].to if status.history else None)
    return HistoryEntry(
        time=case.now,
        kind=kind,
        to=to,
        from_=None if kind is Decision.SELECT else before,
        reason=memory.reason,
        message=memory.message,
        result=result,
        at_request=tally.total(memory, case.fleet),
        seconds=round((case.now - (started or case.now)) / timedelta(seconds=1)),
    )


def appended(history: tuple[HistoryEntry, ...], new: HistoryEntry) -> tuple[HistoryEntry, ...]:
    """Oldest first, bounded."""
    return (*history, new)[-KEPT_HISTORY:]


def _described(limits: Limits, number: int, rows: int, case: Case) -> Served:
    contender = served_contender(limits, case.bench.contenders)
    timing = contender.timing_at(limits.precision) if contender else None
    return Served(
        candidate=limits.candidate,
        revision=number,
        layer_budget=limits.layer_budget,
        max_batch_size=rows,
        exits_digest=limits.exits_digest,
        timing=timing.name if timing else None,
        quality=_quality_name(contender, limits.precision, case),
        since=case.now,
        weight_dtype=limits.weight_dtype,
        kv_cache_dtype=limits.kv_cache_dtype,
        quality_percent=_quality_percent(contender, limits, case),
        memory_mib=limits.memory_mib or None,
    )


def _largest_request(revision: Revision, case: Case) -> int | None:
    """That every pod takes which runs the document; None while none tells."""
    limits = revision.limits
    contender = served_contender(limits, case.bench.contenders)
    told = (pod.telemetry for pod in revision.pods if pod.telemetry)
    pools = [each.capacity.kv_capacity_tokens for each in told if each.limits.generation == limits.generation]
    if contender is None or contender.resolved is None or not any(pools):
        return None
    return largest_request(contender.resolved.max_context_tokens, min(filter(None, pools)))


def _quality_percent(contender: Contender | None, limits: Limits, case: Case) -> int | None:
    if contender is None or case.profiles is None:
        return None
    found = case.profiles.quality(contender, limits.layer_budget, limits.precision)
    return whole(found.mean) if found else None


def _quality_name(contender: Contender | None, precision: Precision, case: Case) -> str | None:
    if contender is None or case.profiles is None:
        return None
    row = contender.quality_on(case.profiles.prompts_digest, precision)
    return row.name if row else None
