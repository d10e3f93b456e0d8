"""Every option of a deployment with its verdict, weighed again from the profiles that are kept.

Called by `report`. The decisions are those of the operator, on profiles alone: what pods told it (their pace,
what they audited) is not kept, so a figure may differ from the one that it went by, which stands with each
candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from helios_operator.api import parse
from helios_operator.api.codec import Malformed
from helios_operator.api.rows import QualityRow, Row, TasksRow, TimingIdentity, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide import weigh
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option
from helios_operator.passes import tasks

from helios_cli.views import Object

T = TypeVar("T")


@dataclass(frozen=True)
class WeighedOption:
    """A candidate at a depth in layers, its weights/keys and values in `precision`, with `rows` requests
    together. Quality in percent of full depth, with both bounds; None: not measured. `serves`: it
    does now."""

    candidate: str
    layers: int
    precision: str
    rows: int
    quality_percent: float | None
    quality_low: float | None
    quality_high: float | None
    tokens_per_second: float | None
    latency_ms: float | None
    feasible: bool
    reason: str
    message: str
    serves: bool


@dataclass(frozen=True)
class Weighed:
    """`target`: of quality, in percent; None: none is asked. `notes`: what the options do not heed, or why
    there are none, in sentences."""

    target: int | None = None
    options: list[WeighedOption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def weighed(obj: Object, rows: Sequence[Object], models: Sequence[Object], now: datetime) -> Weighed:
    """Best first. An object of another release is left out and named."""
    try:
        deployment = parse.deployment(dict(obj))
    except Malformed as error:
        return Weighed(notes=[f"Not weighed: the deployment is not of this release: {error}."])
    notes: list[str] = []
    known = list(_read(parse.profile_row, rows, notes))
    catalogue = tuple(_read(parse.model, models, notes))
    target = select.minimum_quality(deployment.spec.slo)
    timed = _timed(deployment, known)
    if timed is None:
        return Weighed(target, notes=[*notes, "Nothing is timed yet."])
    deployment = _without_foreign_tasks(deployment, notes)
    snapshot = Snapshot(
        deployment=deployment,
        hardware=timed.hardware,
        free_memory_mib=timed.hardware.memory_mib,
        performance_version=timed.performance_version,
        models=catalogue,
        timings=tuple(row for row in known if isinstance(row, TimingRow)),
        qualities=tuple(row for row in known if isinstance(row, QualityRow)),
        task_rows=tuple(row for row in known if isinstance(row, TasksRow)),
        tasks=tasks.seen(deployment.spec.profiling.tasks, None),
    )
    options = [_option(option, deployment) for option in weigh(snapshot, now)[1]]
    return Weighed(target, options, notes if options else [*notes, "No candidate is measured."])


def _read(how: Callable[[Object], T], objects: Sequence[Object], notes: list[str]) -> Iterator[T]:
    for obj in objects:
        try:
            yield how(obj)
        except Malformed as error:
            notes.append(f"Left out, for it is not of this release: {obj['metadata']['name']}: {error}.")


def _without_foreign_tasks(deployment: Deployment, notes: list[str]) -> Deployment:
    """Tasks of a ConfigMap are not read here, so that options are not judged by them."""
    spec = deployment.spec
    source = spec.profiling.tasks
    if spec.slo.min_task_percent is None or source is None or source.config_map_ref is None:
        return deployment
    notes.append(
        f"slo.minTaskPercent is not heeded here: its tasks are in the ConfigMap {source.config_map_ref.name}."
    )
    profiling, slo = replace(spec.profiling, tasks=None), replace(spec.slo, min_task_percent=None)
    return replace(deployment, spec=replace(spec, profiling=profiling, slo=slo))


def _timed(deployment: Deployment, rows: Sequence[Row]) -> TimingIdentity | None:
    """Where, and for which engine, what serves was timed; else any of its candidates."""
    status = deployment.status
    named = [status.active.timing if status.active else None, *(each.timing for each in status.candidates)]
    timings = {row.name: row for row in rows if isinstance(row, TimingRow)}
    return next((timings[name].identity for name in named if name in timings), None)


def _option(option: Option, deployment: Deployment) -> WeighedOption:
    active, quality, performance = deployment.status.active, option.quality, option.performance
    serves = active is not None and (active.candidate, active.layer_budget, active.precision) == (
        option.contender.name,
        option.layer_budget,
        option.precision,
    )
    return WeighedOption(
        candidate=option.contender.name,
        layers=option.layer_budget,
        precision=str(option.precision),
        rows=option.max_batch_size,
        quality_percent=quality.mean if quality else None,
        quality_low=quality.low if quality else None,
        quality_high=quality.high if quality else None,
        tokens_per_second=performance.expected.tokens_per_second if performance else None,
        latency_ms=performance.latency_ms if performance else None,
        feasible=option.verdict.ok,
        reason=str(option.verdict.reason),
        message=option.verdict.message,
        serves=serves,
    )
