"""What a HeliosDeployment's options are worth, from its objects alone: for `helios why` and `helios report`.

The decisions of the operator, on what stands in the history table. What pods tell is not among the objects:
figures are those of the profiles. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from helios_operator.api import identity, parse
from helios_operator.api.codec import Malformed
from helios_operator.api.problems import Invalid
from helios_operator.api.rows import Hardware, QualityRow, Row, TasksRow, TimingIdentity, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide import weigh
from helios_operator.decide.snapshot import PromptSource, Snapshot, TaskSet
from helios_operator.decide.weigh.options import Option
from helios_operator.passes import tasks
from helios_operator.passes.prompts import texts
from helios_server.planning import PERFORMANCE_VERSION

Object = Mapping[str, Any]
Text = Callable[[str, str], str | None]
"""What a ConfigMap holds under a key; None where nobody may or can read it."""
T = TypeVar("T")
_NOWHERE = TimingIdentity("", "", "", (), Hardware(None, 0, 0, "", 0, ""), PERFORMANCE_VERSION)


@dataclass(frozen=True)
class Weighed:
    """`options`: best first. `notes`: what could not be read, in sentences. `deployment`: None where it is
    that."""

    deployment: Deployment | None = None
    options: tuple[Option, ...] = ()
    notes: list[str] = field(default_factory=list)


def weighed(
    obj: Object, profiles: Sequence[Object], models: Sequence[Object], text: Text, now: datetime
) -> Weighed:
    """An object of another release is left out and named."""
    try:
        deployment = parse.deployment(dict(obj))
    except (Malformed, Invalid) as error:
        return Weighed(notes=[f"No options: the deployment is not of this release: {error}."])
    notes: list[str] = []
    rows = list(_read(parse.profile_row, profiles, notes))
    timed = _timed(deployment, [row for row in rows if isinstance(row, TimingRow)])
    snapshot = Snapshot(
        deployment=_limited(deployment),
        hardware=timed.hardware,
        free_memory_mib=0,
        performance_version=timed.performance_version,
        models=tuple(_read(parse.model, models, notes)),
        prompts=given_prompts(deployment, text),
        tasks=given_tasks(deployment, text),
    )
    return Weighed(deployment, weigh(with_rows(snapshot, rows), now)[1], notes)


def _read(how: Callable[[dict[str, Any]], T], objects: Sequence[Object], notes: list[str]) -> Iterator[T]:
    for obj in objects:
        try:
            yield how(dict(obj))
        except (Malformed, Invalid) as error:
            notes.append(f"Left out, because it is not of this release: {obj['metadata']['name']}: {error}.")


def _limited(deployment: Deployment) -> Deployment:
    """With the memory that its pods were given, where the spec leaves that to the machine."""
    served, limits = deployment.status.active or deployment.status.target, deployment.spec.limits
    if limits.memory_mib is not None or served is None or served.memory_mib is None:
        return deployment
    limits = replace(limits, memory_mib=served.memory_mib)
    return replace(deployment, spec=replace(deployment.spec, limits=limits))


def _timed(deployment: Deployment, timings: Sequence[TimingRow]) -> TimingIdentity:
    """Where, and for which engine, what serves was timed; else what its status names."""
    status = deployment.status
    named = [status.active.timing if status.active else None]
    named += [name for c in status.candidates for name in (c.timing, *c.profiles)]
    known = {row.name: row.identity for row in timings}
    return next((known[name] for name in named if name in known), _NOWHERE)


def with_rows(snapshot: Snapshot, rows: Sequence[Row]) -> Snapshot:
    """In place of its own."""
    return replace(
        snapshot,
        timings=tuple(row for row in rows if isinstance(row, TimingRow)),
        qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
        task_rows=tuple(row for row in rows if isinstance(row, TasksRow)),
    )


def given_prompts(deployment: Deployment, text: Text) -> PromptSource | None:
    """As `observe` sees them."""
    source = deployment.spec.profiling.prompts
    ref = source.config_map_ref
    given = texts(text(ref.name, ref.key) or "") if ref else source.inline
    return PromptSource(identity.prompts_digest(given), len(given)) if given else None


def given_tasks(deployment: Deployment, text: Text) -> TaskSet | None:
    """The same."""
    source = deployment.spec.profiling.tasks
    ref = source.config_map_ref if source else None
    return tasks.seen(source, text(ref.name, ref.key) if ref else None)
