"""What was measured, from wherever it is kept: a state folder, files of HeliosProfiles, files that `helios
profile --result` wrote, or a cluster.

Read by `helios plan` and `helios simulate`, which change nothing. It must not measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_contract.results import SCHEMA, Inspection, Quality, Resolved, Result, Tasks, Timing, Timings
from helios_contract.serves import Precision
from helios_operator.api import documents, parse, results, validation
from helios_operator.api.rows import Hardware, Row, TimingIdentity
from helios_operator.api.types import Candidate
from helios_operator.decide.facts.candidates import identity
from helios_operator.errors import OperatorError
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store
from helios_server.planning import PERFORMANCE_VERSION

Object = dict[str, Any]


def stored(folder: Path) -> list[Object]:
    """The objects of a state folder, or of every YAML or JSON file in a folder, results of Jobs among
    them."""
    if (folder / "objects").is_dir():
        store = Store.read(folder / "objects")
        return [*store.objects(PROFILE), *store.objects(DEPLOYMENT)]
    if not folder.is_dir():
        raise OperatorError(
            "profiles", f"there is no folder {folder}", "give a state folder, or one of HeliosProfiles"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    return [obj for path in files for obj in documents.read(path) if isinstance(obj, dict)]


def parsed(objects: Iterable[Object]) -> list[Row]:
    """The HeliosProfiles among them."""
    return [parse.profile_row(validation.admit(obj)) for obj in objects if obj.get("kind") == PROFILE]


@dataclass(frozen=True)
class Known:
    """Rows, and by name what candidates turned out to be."""

    rows: list[Row]
    resolved: dict[str, Resolved]


def known(objects: Sequence[Object], candidates: Sequence[Candidate], here: Hardware) -> Known:
    """What these objects tell of candidates: HeliosProfiles, the status of HeliosDeployments, and results.
    here: where results were measured, which they do not say."""
    found = Known(parsed(objects), _seen(objects, candidates))
    documents = [obj for obj in objects if obj.get("schema") == SCHEMA]
    read = [results.read(json.dumps(document)) for document in documents]
    for result in read:
        if isinstance(result, Inspection):
            found.resolved.update(result.resolved)
    for result in read:
        found.rows.extend(_rows_of(result, candidates, found.resolved, here))
    return found


def _seen(objects: Iterable[Object], candidates: Sequence[Candidate]) -> dict[str, Resolved]:
    """By the candidates' identity, for they may have another name there."""
    statuses = {
        status.identity: status.resolved
        for obj in objects
        if obj.get("kind") == DEPLOYMENT
        for status in parse.deployment(obj).status.candidates
        if status.resolved
    }
    mine = {candidate.name: statuses.get(identity(candidate)) for candidate in candidates}
    return {name: resolved for name, resolved in mine.items() if resolved}


def _rows_of(
    result: Result, candidates: Sequence[Candidate], resolved: Mapping[str, Resolved], here: Hardware
) -> Sequence[Row]:
    now = datetime.now(UTC)
    exactly = {
        c.name: replace(c, revision=resolved[c.name].revision) for c in candidates if c.name in resolved
    }
    if isinstance(result, Quality):
        return results.quality(result, exactly, now)
    if isinstance(result, Tasks):
        return results.tasks(result, exactly, result.tasks_digest, now)
    if isinstance(result, Timing | Timings):
        return _timings(result, exactly, resolved, here, now)
    return ()


def _timings(
    result: Timing | Timings,
    candidates: Mapping[str, Candidate],
    resolved: Mapping[str, Resolved],
    here: Hardware,
    now: datetime,
) -> Sequence[Row]:
    if len({(c.uri, c.revision) for c in candidates.values()}) != 1:
        problem = "a timing does not say whose it is, and the candidates are not known to be of one model"
        raise OperatorError("profiles", problem, "give HeliosProfiles, or a state folder, in its place")
    first = next(iter(candidates.values()))
    several = result.timings if isinstance(result, Timings) else (result,)
    kinds = {kind for each in several if each.fit for kind in each.fit.heads}
    measured = {
        precision: TimingIdentity(
            model_uri=first.uri,
            revision=first.revision or "",
            dtype=here.dtype,
            head_kinds=tuple(sorted(kinds)),
            hardware=here,
            performance_version=PERFORMANCE_VERSION,
            weight_dtype=precision.weight_dtype,
            kv_cache_dtype=precision.kv_cache_dtype,
        )
        for precision in (Precision(each.weight_dtype, each.kv_cache_dtype) for each in several)
    }
    return results.timings(result, measured, now)
