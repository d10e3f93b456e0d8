"""What a pass learned of the catalogue: the status of each HeliosModel that its measurements tell of.

Called by `decide` last. An entry is used by several deployments, whose passes must not answer each other for
ever: of two Inspects the newest has the word, and a profile counts when it is of the revision that stands. It
chooses nothing, and no decision rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from helios_contract.serves import REFERENCE

from helios_operator.api.models import Model
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import RowPhase
from helios_operator.api.status import ModelStatus
from helios_operator.api.types import Condition
from helios_operator.api.words import Where
from helios_operator.decide.facts.candidates import Contender, identity, inspected
from helios_operator.decide.snapshot import Snapshot


def learned(snapshot: Snapshot, contenders: tuple[Contender, ...], now: datetime) -> Iterator[Model]:
    """The entries of which something else is known than what stands."""
    known = {identity(contender.candidate): contender for contender in contenders}
    for model in snapshot.models:
        contender = known.get(identity(model.candidate))
        status = _status(model, contender, snapshot, now)
        if status != model.status:
            yield replace(model, status=status)


def _status(model: Model, contender: Contender | None, snapshot: Snapshot, now: datetime) -> ModelStatus:
    condition = _resolved(model, contender, snapshot, now)
    if condition is None:
        return model.status
    others = tuple(c for c in model.status.conditions if c.type != condition.type)
    corrected_by = _corrected_by(model.status.corrected_by, condition, contender, snapshot)
    return ModelStatus(condition.observed_generation, (*others, condition), corrected_by)


# -- Resolved ------------------------------------------------------------------------------------------------


def _resolved(
    model: Model, contender: Contender | None, snapshot: Snapshot, now: datetime
) -> Condition | None:
    """Its last transition is the Inspect that first found what it says."""
    standing = next((c for c in model.status.conditions if c.type == Where.MODEL), None)
    found = _newest_inspect(model, snapshot)
    is_current = standing is not None and standing.observed_generation == model.generation
    if found is None and not is_current and contender is not None:
        found = _recorded(contender, now)
    if found is None:
        return standing
    if standing is not None and _says(found) == _says(standing):
        return replace(standing, observed_generation=model.generation)
    if standing is not None and is_current and found.last_transition_time <= standing.last_transition_time:
        return standing
    return replace(found, observed_generation=model.generation)


def _newest_inspect(model: Model, snapshot: Snapshot) -> Condition | None:
    looks = (
        _condition(
            found.resolved.revision if found.resolved else None, found.message, job.finished or job.started
        )
        for job, found in inspected(snapshot)
        if found.identity == identity(model.candidate)
    )
    return max(looks, key=lambda condition: condition.last_transition_time, default=None)


def _recorded(contender: Contender, now: datetime) -> Condition | None:
    """What a deployment remembers of an Inspect whose Job is gone."""
    if contender.resolved is not None:
        return _condition(contender.resolved.revision, "", now)
    verdict = contender.turned_away
    if verdict is None or verdict.reason is not Reason.UNRESOLVED:
        return None
    return _condition(None, verdict.message, now)


def _condition(revision: str | None, problem: str, at: datetime) -> Condition:
    if revision is not None:
        return Condition(Where.MODEL.value, "True", Reason.REVISION_FOUND.value, revision, at)
    return Condition(Where.MODEL.value, "False", Reason.REVISION_NOT_FOUND.value, problem, at)


def _says(condition: Condition) -> tuple[str, str, str]:
    return condition.status, condition.reason, condition.message


# -- correctedBy ---------------------------------------------------------------------------------------------


def _corrected_by(
    standing: str | None, condition: Condition, contender: Contender | None, snapshot: Snapshot
) -> str | None:
    """The first complete row: of quality, as soon as there is one. It keeps its place while it is there."""
    resolved = contender.resolved if contender else None
    if contender is None or resolved is None or condition.message != resolved.revision:
        return standing
    of_model = (contender.candidate.uri, resolved.revision)
    qualities = {
        row.name
        for row in snapshot.qualities
        if row.phase is RowPhase.COMPLETE
        and row.identity.precision == REFERENCE
        and (row.identity.model_uri, row.identity.revision) == of_model
    }
    own = [row.name for row in contender.qualities if row.name in qualities]
    if own:
        return standing if standing in qualities else own[-1]
    if contender.timing is None or standing in {*qualities, *(row.name for row in snapshot.timings)}:
        return standing
    return contender.timing.name
