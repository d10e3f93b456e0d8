"""What `helios plan` rests on: rows of the history table, and results of `helios profile` read as such rows.

A state folder, a folder of HeliosProfiles and results, or one such file. A result does not say of which
model it is: it is taken for a candidate's of the same heads and depth, timed on this machine, or refused by
its file's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_contract import results as contract
from helios_contract.results import Quality, Result, Timing, Timings
from helios_contract.serves import Precision
from helios_operator.api import documents, parse, results, validation
from helios_operator.api.rows import Hardware, QualityRow, Row, TimingRow
from helios_operator.api.types import Candidate
from helios_operator.decide.facts.candidates import Contender, backbones, timing_identity
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError
from helios_operator.local.store import PROFILE, Store

Object = Mapping[str, Any]


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
    """`owners`: of each row, the HeliosDeployments that use it."""

    rows: tuple[Row, ...]
    owners: Mapping[str, Sequence[str]]
    results: tuple[Found, ...]


def read(place: Path) -> Measured:
    if (place / "objects").is_dir():
        return _of_objects(Store.read(place / "objects").objects(PROFILE), ())
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
    return _of_objects(objects, tuple(Found(path, result) for path, result in found.items() if result))


def _of_objects(objects: Sequence[Any], found: tuple[Found, ...]) -> Measured:
    stored = [obj for obj in objects if isinstance(obj, dict) and obj.get("kind") == PROFILE]
    owners = {
        obj["metadata"]["name"]: [each["name"] for each in obj["metadata"].get("ownerReferences", [])]
        for obj in stored
    }
    return Measured(tuple(parse.profile_row(validation.admit(obj)) for obj in stored), owners, found)


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
    return results.read(json.dumps(document))


# -- as rows -------------------------------------------------------------------------------------------------


def rows_of(
    found: Sequence[Found], contenders: tuple[Contender, ...], snapshot: Snapshot, here: Hardware
) -> Iterator[Row]:
    """OperatorError for a result that is none of these candidates'."""
    for each in found:
        if said := results.failure(each.result):
            raise each.refusal(f"tells of a failure ({said})", "put it right, and profile again")
        if isinstance(each.result, Timing | Timings):
            yield from _timings(each, contenders, replace(snapshot, hardware=here))
        if isinstance(each.result, Quality):
            yield from _qualities(each, each.result, contenders)


def _timings(found: Found, contenders: tuple[Contender, ...], snapshot: Snapshot) -> Iterator[TimingRow]:
    families = list(backbones(contenders).values())
    if len(families) != 1:
        problem = f"does not say which of {len(families)} backbones it times"
        raise found.refusal(problem, "plan for the candidates of one backbone")
    result = found.result
    timed = result.timings if isinstance(result, Timings) else (result,)
    for one in timed:
        if not isinstance(one, Timing) or one.fit is None:
            continue
        precision = Precision(one.weight_dtype, one.kv_cache_dtype)
        wanted = timing_identity(families[0], snapshot, precision)
        if lacking := sorted(set(wanted.head_kinds) - set(one.fit.heads)):
            kinds = ", ".join(lacking)
            raise found.refusal(f"does not time heads of kind {kinds}", "profile with --candidates of FILE")
        yield results.timing(one, wanted, found.completed)


def _qualities(found: Found, result: Quality, contenders: tuple[Contender, ...]) -> Iterator[QualityRow]:
    """By name, or by what the heads are: a person profiles a model without naming a candidate."""
    known: dict[str, Candidate] = {}
    for row in result.rows:
        same = [c for c in contenders if c.resolved and c.resolved.exits_digest == row.exits_digest]
        fitting = [c for c in same if c.resolved and row.exits[-1].layer == c.resolved.num_layers]
        named = [c for c in fitting if c.name == row.candidate] or fitting
        if len({c.resolved.backbone for c in named if c.resolved}) != 1:
            problem = (
                f"measures {row.candidate!r}, which is no candidate of FILE"
                if not named
                else (f"measures {row.candidate!r}, which may be any of {', '.join(c.name for c in named)}")
            )
            raise found.refusal(problem, "profile with --candidates of FILE")
        first = named[0]
        revision = first.resolved.revision if first.resolved else ""
        known[row.candidate] = replace(first.candidate, revision=revision)
    yield from results.quality(result, known, found.completed)
