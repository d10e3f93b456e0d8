"""Who competes: every candidate of the spec or of the catalogue, with all that is known about it so far.

Called first by `decide`; everything after it reads Contenders, never the spec's list. It must not rank or
reject: that is the shortlist's. Nothing here depends on a candidate's name or place in the list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from helios_contract.results import Resolved
from helios_contract.serves import REFERENCE, Precision

from helios_operator.api.models import Model, Published
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import QualityIdentity, QualityRow, RowPhase, TimingIdentity, TimingRow
from helios_operator.api.types import Bounds, Candidate, CandidateStatus
from helios_operator.decide.facts import precisions
from helios_operator.decide.facts.precisions import place
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, Snapshot

Key = tuple[str, str, str, tuple[int, ...]]
NOTHING_PUBLISHED = Published()


@dataclass(frozen=True)
class Contender:
    """A candidate and what is known of it: `resolved` from Inspect, rows from the history table.

    `turned_away` says why it is not considered at all: by the shortlist, or because it cannot be found.
    """

    candidate: Candidate
    published: Published = NOTHING_PUBLISHED
    resolved: Resolved | None = None
    precisions: tuple[Precision, ...] = (REFERENCE,)
    """That may be weighed, in the order in which they are measured."""
    left_out: str = ""
    """Those that the spec allows and nobody measures, each with the reason."""
    timings: tuple[TimingRow, ...] = ()
    """Complete ones, one for each precision, in the same order."""
    timings_failed: tuple[TimingRow, ...] = ()
    """The same of those that could not be measured."""
    qualities: tuple[QualityRow, ...] = ()
    """All its Quality rows, complete or not, newest first."""
    turned_away: Verdict | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def key(self) -> Key:
        """What it is, whatever it is called: the order of last resort."""
        return key(self.candidate)

    @property
    def competes(self) -> bool:
        return self.turned_away is None

    @property
    def measurable(self) -> Resolved | None:
        """Its resolution while it competes."""
        return self.resolved if self.competes else None

    @property
    def timing(self) -> TimingRow | None:
        """Of the first precision that was timed: it competes with that one at least."""
        return next((row for p in self.precisions if (row := self.timing_at(p))), None)

    @property
    def timing_failed(self) -> TimingRow | None:
        return next((row for p in self.precisions if (row := self.failed_at(p))), None)

    def timing_at(self, precision: Precision) -> TimingRow | None:
        """The complete row, whether it may be weighed or not."""
        return next((row for row in self.timings if row.identity.precision == precision), None)

    def failed_at(self, precision: Precision) -> TimingRow | None:
        return next((row for row in self.timings_failed if row.identity.precision == precision), None)

    def qualities_at(self, precision: Precision) -> tuple[QualityRow, ...]:
        return tuple(row for row in self.qualities if row.identity.precision == precision)

    def quality_on(self, prompts_digest: str, precision: Precision = REFERENCE) -> QualityRow | None:
        """The complete row on these prompts."""
        for row in self.qualities_at(precision):
            if row.identity.prompts_digest == prompts_digest and row.phase is RowPhase.COMPLETE:
                return row
        return None


def key(candidate: Candidate) -> Key:
    return (candidate.uri, candidate.revision or "", candidate.exits or "", candidate.exit_layers)


def identity(candidate: Candidate) -> str:
    """Digest of what Inspect looks at: another one makes what was found stale."""
    document = [*key(candidate), candidate.trust_remote_code]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:12]


def gather(snapshot: Snapshot, policy: Policy) -> tuple[Contender, ...]:
    """All contenders in an order that follows from what they are alone."""
    named = sorted(_named(snapshot), key=lambda contender: contender.key)
    known = _known(snapshot)
    limit = snapshot.deployment.spec.limits.max_context_tokens
    looked_at = [_with_inspection(contender, known, limit) for contender in named]
    held = [_with_precisions(contender, looked_at, snapshot, policy) for contender in looked_at]
    return tuple(_with_rows(contender, held, snapshot) for contender in held)


def backbones(contenders: tuple[Contender, ...]) -> dict[str, tuple[Contender, ...]]:
    """Those that compete and are resolved, by the fingerprint of their backbone."""
    groups: dict[str, tuple[Contender, ...]] = {}
    for contender in contenders:
        if resolved := contender.measurable:
            groups[resolved.backbone] = (*groups.get(resolved.backbone, ()), contender)
    return groups


def legal_depths(contender: Contender, spec_bounds: Bounds) -> tuple[int, ...]:
    """The exits within the layer budget, clipped to the candidate's depth; full depth counts as an exit."""
    resolved = contender.resolved
    if resolved is None:
        return ()
    bounds = contender.candidate.layer_budget or spec_bounds
    lowest = min(bounds.min or 1, resolved.num_layers)
    highest = min(bounds.max or resolved.num_layers, resolved.num_layers)
    exits = {*(layer for layer in resolved.exit_layers if layer < resolved.num_layers), resolved.num_layers}
    return tuple(sorted(layer for layer in exits if lowest <= layer <= highest))


def depth_problem(contenders: tuple[Contender, ...], spec_bounds: Bounds) -> str:
    """A layer budget above every candidate's depth is a mistake, not a wish; "" when there is none."""
    depths = [c.resolved.num_layers for c in contenders if c.resolved]
    if not depths or len(depths) < sum(c.competes for c in contenders):
        return ""
    for name, bound in (("min", spec_bounds.min), ("max", spec_bounds.max)):
        if bound is not None and bound > max(depths):
            return (
                f"spec.limits.layerBudget.{name}: {bound} is above every candidate's depth; "
                f"use at most {max(depths)}"
            )
    return ""


def _named(snapshot: Snapshot) -> Iterator[Contender]:
    spec = snapshot.deployment.spec
    if spec.candidate_selector is None:
        yield from (Contender(candidate) for candidate in spec.candidates)
        return
    wanted = spec.candidate_selector.match_labels
    for model in snapshot.models:
        if _matches(model, wanted):
            yield Contender(replace(model.candidate, name=model.name), model.published)


def _matches(model: Model, wanted: Mapping[str, str]) -> bool:
    return all(model.labels.get(label) == value for label, value in wanted.items())


def inspected(snapshot: Snapshot) -> Iterator[tuple[Job, CandidateStatus]]:
    """What Inspect Jobs that ended found of each candidate."""
    for job in snapshot.jobs:
        if job.spec.kind is not JobKind.INSPECT or job.phase is JobPhase.RUNNING:
            continue
        if job.phase is JobPhase.FAILED and job.attempts <= snapshot.deployment.spec.profiling.backoff_limit:
            continue
        for candidate in job.spec.candidates:
            found, problem = job.resolved.get(candidate.name), job.problems.get(candidate.name, job.message)
            if found or problem:
                state = "Profiling" if found else "Failed"
                yield (
                    job,
                    CandidateStatus(
                        candidate.name, state, False, problem, found, identity=identity(candidate)
                    ),
                )


def _known(snapshot: Snapshot) -> dict[str, CandidateStatus]:
    """What is known of candidates, by identity: from the status, and from Jobs that just ended."""
    known = {status.identity: status for status in snapshot.deployment.status.candidates if status.identity}
    return known | {found.identity: found for _, found in inspected(snapshot)}


def _with_inspection(
    contender: Contender, known: Mapping[str, CandidateStatus], max_context: int | None
) -> Contender:
    status = known.get(identity(contender.candidate))
    if status is None:
        return contender
    if status.resolved:
        return replace(contender, resolved=_as_served(status.resolved, max_context))
    if status.state == "Failed":
        return replace(contender, turned_away=Verdict(False, Reason.UNRESOLVED, status.message))
    return contender


def _as_served(resolved: Resolved, limit: int | None) -> Resolved:
    """With the context that pods serve: as the spec has it and the model allows."""
    own = own_context(resolved)
    tokens = min(limit or own, resolved.longest_context_tokens or own)
    if tokens == resolved.max_context_tokens:
        return resolved
    return replace(resolved, max_context_tokens=tokens, model_context_tokens=own)


def own_context(resolved: Resolved) -> int:
    """Tokens that the model is made for."""
    return resolved.model_context_tokens or resolved.max_context_tokens


def _with_precisions(
    contender: Contender, everyone: list[Contender], snapshot: Snapshot, policy: Policy
) -> Contender:
    """Those that are measured of its backbone. Nobody can serve one that has none."""
    family = [c.candidate for c in _family(contender, everyone)]
    accelerator = snapshot.hardware.accelerator
    held = precisions.weighed(contender.candidate, family, accelerator, policy.most_precisions)
    contender = replace(contender, precisions=held.precisions, left_out=held.said)
    if held.precisions or not contender.competes:
        return contender
    message = f"none of its precisions can be served: {held.said}"
    return replace(contender, turned_away=Verdict(False, Reason.PRECISION_UNSUPPORTED, message))


def _family(contender: Contender, everyone: list[Contender]) -> list[Contender]:
    """All on its backbone."""
    resolved = contender.resolved
    if resolved is None:
        return [contender]
    return [c for c in everyone if c.resolved and c.resolved.backbone == resolved.backbone]


def _with_rows(contender: Contender, everyone: list[Contender], snapshot: Snapshot) -> Contender:
    resolved = contender.resolved
    if resolved is None:
        return contender
    family = _family(contender, everyone)
    fitting = sorted(
        (row for row in snapshot.timings if _covers(row.identity, family, snapshot)),
        key=lambda row: (place(row.identity.precision), row.name),
    )
    complete = (row for row in fitting if row.phase is RowPhase.COMPLETE and row.fit and row.memory)
    return replace(
        contender,
        timings=_one_each(complete),
        timings_failed=_one_each(row for row in fitting if row.phase is RowPhase.FAILED),
        qualities=_quality_rows(contender, resolved, snapshot),
    )


def _one_each(rows: Iterable[TimingRow]) -> tuple[TimingRow, ...]:
    """The first of each precision."""
    found: dict[Precision, TimingRow] = {}
    for row in rows:
        found.setdefault(row.identity.precision, row)
    return tuple(found.values())


def timing_identity(
    family: tuple[Contender, ...], snapshot: Snapshot, precision: Precision = REFERENCE
) -> TimingIdentity:
    """Of the measurement that all candidates on one backbone share. Every kind of head is timed, the bare one
    too."""
    first = min(family, key=lambda contender: contender.key)
    kinds = {"bare", *(c.resolved.head_kind for c in family if c.resolved)}
    return TimingIdentity(
        model_uri=first.candidate.uri,
        revision=first.resolved.revision if first.resolved else "",
        dtype=snapshot.hardware.dtype,
        head_kinds=tuple(sorted(kinds)),
        hardware=snapshot.hardware,
        performance_version=snapshot.performance_version,
        max_context_tokens=_bound_context(first.resolved) if first.resolved else 0,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


def _bound_context(resolved: Resolved) -> int:
    """0 where it is the model's own: such rows are older than the bound, and stay."""
    tokens = resolved.max_context_tokens
    return 0 if tokens == own_context(resolved) else tokens


def quality_identity(
    contender: Contender, prompts_digest: str, precision: Precision = REFERENCE
) -> QualityIdentity:
    resolved = contender.resolved
    return QualityIdentity(
        model_uri=contender.candidate.uri,
        revision=resolved.revision if resolved else "",
        exits_digest=resolved.exits_digest if resolved else "",
        prompts_digest=prompts_digest,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


def _covers(row: TimingIdentity, family: list[Contender], snapshot: Snapshot) -> bool:
    """A row of this backbone, hardware, engine and context that timed at least the kinds of heads needed, in
    whatever precision."""
    wanted = timing_identity(tuple(family), snapshot)
    same_model = {(c.candidate.uri, c.resolved.revision) for c in family if c.resolved}
    return (
        (row.model_uri, row.revision) in same_model
        and (row.dtype, row.hardware, row.performance_version, row.max_context_tokens)
        == (wanted.dtype, wanted.hardware, wanted.performance_version, wanted.max_context_tokens)
        and set(wanted.head_kinds) <= set(row.head_kinds)
    )


def _quality_rows(contender: Contender, resolved: Resolved, snapshot: Snapshot) -> tuple[QualityRow, ...]:
    mine = (contender.candidate.uri, resolved.revision, resolved.exits_digest)
    rows = [
        row
        for row in snapshot.qualities
        if (row.identity.model_uri, row.identity.revision, row.identity.exits_digest) == mine
    ]
    return tuple(
        sorted(rows, key=lambda row: (row.completed is not None, row.completed, row.name), reverse=True)
    )
