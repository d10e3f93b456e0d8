"""What was measured already: rows of the history table, and results of `helios profile` read as such rows.

Read by `helios plan` and `helios simulate`, from a state folder, from a folder of HeliosProfiles and results,
from one such file, or from the objects of a cluster. A result does not say of which model it is: it is taken
for a candidate's of the same heads and depth, timed on this machine, or refused by its file's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from helios_contract import results as contract
from helios_contract.results import (
    CandidateQuality,
    Inspection,
    OptionPasses,
    Quality,
    Resolved,
    Result,
    Tasks,
    Timing,
    Timings,
)
from helios_contract.serves import Precision
from helios_operator.api import documents, parse, results, validation
from helios_operator.api.rows import Row, TimingRow
from helios_operator.api.types import Candidate
from helios_operator.decide.facts.candidates import Contender, backbones, identity, timing_identity
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError, ResultError
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store

Object = Mapping[str, Any]
Measurement = TypeVar("Measurement", CandidateQuality, OptionPasses)


@dataclass(frozen=True)
class Found:
    """A result of `helios profile`, where it was found."""

    file: Path
    result: Result

    @property
    def completed(self) -> datetime:
        return datetime.fromtimestamp(int(self.file.stat().st_mtime), UTC)

    def refusal(self, problem: str, fix: str) -> OperatorError:
        return OperatorError(str(self.file), problem, fix)


@dataclass(frozen=True)
class Measured:
    """`owners`: of each row, the HeliosDeployments that use it; `deployments`: those that stand beside the
    rows, as objects."""

    rows: tuple[Row, ...]
    owners: Mapping[str, Sequence[str]]
    deployments: tuple[Object, ...]
    results: tuple[Found, ...]


def read(place: Path) -> Measured:
    if (place / "objects").is_dir():
        store = Store.read(place / "objects")
        return of_objects([*store.objects(PROFILE), *store.objects(DEPLOYMENT)])
    if place.is_dir():
        suffixes = (".yaml", ".yml", ".json")
        files = sorted(path for path in place.iterdir() if path.suffix in suffixes)
    elif place.is_file():
        files = [place]
    else:
        fix = "give a state folder, or HeliosProfiles and results of `helios profile`"
        raise OperatorError("profiles", f"there is no {place}", fix)
    found = {path: _result(path) for path in files}
    objects = [obj for path in files if found[path] is None for obj in documents.read(path)]
    return of_objects(objects, tuple(Found(path, result) for path, result in found.items() if result))


def of_objects(objects: Iterable[Any], found: tuple[Found, ...] = ()) -> Measured:
    known = [obj for obj in objects if isinstance(obj, dict)]
    stored = [obj for obj in known if obj.get("kind") == PROFILE]
    owners = {
        obj["metadata"]["name"]: [each["name"] for each in obj["metadata"].get("ownerReferences", [])]
        for obj in stored
    }
    rows = tuple(parse.profile_row(validation.admit(obj)) for obj in stored)
    return Measured(rows, owners, tuple(obj for obj in known if obj.get("kind") == DEPLOYMENT), found)


def _result(path: Path) -> Result | None:
    """None: the file holds something else."""
    if path.suffix != ".json":
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # whoever reads objects says what is wrong with it
    if not isinstance(document, dict) or document.get("schema") != contract.SCHEMA:
        return None
    try:
        return results.read(json.dumps(document))
    except ResultError as error:
        raise OperatorError(str(path), error.problem, error.fix) from None


# -- what candidates are -------------------------------------------------------------------------------------


def resolved(measured: Measured, candidates: Sequence[Candidate]) -> dict[str, Resolved]:
    """By name, of those that were looked at: by a HeliosDeployment, where they may have another name, or by
    an Inspect Job, whose result knows them by name alone and comes first."""
    statuses = {
        status.identity: status.resolved
        for obj in measured.deployments
        for status in parse.deployment(dict(obj)).status.candidates
        if status.resolved
    }
    known = {c.name: statuses[identity(c)] for c in candidates if identity(c) in statuses}
    for found in measured.results:
        if isinstance(found.result, Inspection):
            known |= found.result.resolved
    return known


# -- as rows -------------------------------------------------------------------------------------------------


def rows_of(found: Sequence[Found], contenders: tuple[Contender, ...], snapshot: Snapshot) -> Iterator[Row]:
    """As measured on the snapshot's machine. OperatorError for a result that is none of these candidates'."""
    for each in found:
        if said := results.failure(each.result):
            raise each.refusal(f"reports a failure ({said})", "correct it, and profile again")
        try:
            yield from _rows(each, contenders, snapshot)
        except ResultError as error:
            raise each.refusal(error.problem, error.fix) from None


def _rows(found: Found, contenders: tuple[Contender, ...], snapshot: Snapshot) -> Iterator[Row]:
    result, when = found.result, found.completed
    if isinstance(result, Timing | Timings):
        yield from _timings(found, result, contenders, snapshot)
    if isinstance(result, Quality):
        yield from results.quality(result, _owners(found, result.rows, _is_scored, contenders), when)
    if isinstance(result, Tasks):
        owners = _owners(found, result.rows, _is_asked, contenders)
        yield from results.tasks(result, owners, result.tasks_digest, when)


def _timings(
    found: Found, result: Timing | Timings, contenders: tuple[Contender, ...], snapshot: Snapshot
) -> Iterator[TimingRow]:
    families = list(backbones(contenders).values())
    if len(families) != 1:
        problem = f"does not say which of {len(families)} backbones it times"
        raise found.refusal(problem, "name only the candidates of one backbone")
    for one in result.timings if isinstance(result, Timings) else (result,):
        precision = Precision(one.weight_dtype, one.kv_cache_dtype)
        wanted = timing_identity(families[0], snapshot, precision)
        if lacking := sorted(set(wanted.head_kinds) - set(one.fit.heads if one.fit else ())):
            kinds = ", ".join(lacking)
            raise found.refusal(f"does not time heads of kind {kinds}", "profile with --candidates of FILE")
        yield results.timing(one, wanted, found.completed)


def _owners(
    found: Found,
    rows: Sequence[Measurement],
    fits: Callable[[Measurement, Resolved], bool],
    contenders: tuple[Contender, ...],
) -> dict[str, Candidate]:
    """By the name in the result; found by that, or by what the heads are: a person profiles a model without
    naming a candidate."""
    named = {name: [row for row in rows if row.candidate == name] for name in (r.candidate for r in rows)}
    return {name: _owner(found, name, mine, fits, contenders) for name, mine in named.items()}


def _owner(
    found: Found,
    name: str,
    rows: Sequence[Measurement],
    fits: Callable[[Measurement, Resolved], bool],
    contenders: tuple[Contender, ...],
) -> Candidate:
    fitting = {
        c.name: (c.candidate, c.resolved)
        for c in contenders
        if c.resolved and all(fits(row, c.resolved) for row in rows)
    }
    named = {name: fitting[name]} if name in fitting else fitting
    if len({it.backbone for _, it in named.values()}) != 1:
        what = f"may be any of {', '.join(named)}" if named else "is no candidate of FILE"
        raise found.refusal(f"measures {name!r}, which {what}", "profile with --candidates of FILE")
    candidate, it = next(iter(named.values()))
    return replace(candidate, revision=it.revision)


def _is_scored(row: CandidateQuality, it: Resolved) -> bool:
    """Without exits the row is of nothing, as `results.quality` says."""
    same_depth = not row.exits or row.exits[-1].layer == it.num_layers
    return same_depth and row.exits_digest == it.exits_digest


def _is_asked(row: OptionPasses, it: Resolved) -> bool:
    """At full depth the model's own head answers, whatever the bundle."""
    if row.layer_budget == it.num_layers:
        return row.exits_digest in ("", it.exits_digest)
    return row.exits_digest == it.exits_digest and row.layer_budget in it.exit_layers
