"""What a HeliosDeployment's options are worth, from its objects alone: the table that `helios why` shows.

The decisions of the operator, on what stands in the history table. What pods tell is not among the objects:
figures are those of the profiles. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from helios_operator.api import identity, parse
from helios_operator.api.codec import Malformed
from helios_operator.api.problems import Invalid
from helios_operator.api.rows import Hardware, QualityRow, Row, TasksRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide import weigh
from helios_operator.decide.snapshot import PromptSource, Snapshot
from helios_operator.passes import tasks
from helios_operator.passes.prompts import texts
from helios_server.planning import PERFORMANCE_VERSION

from helios_cli.options import OptionView

Object = Mapping[str, Any]
Text = Callable[[str, str], str | None]
"""What a ConfigMap holds under a key; None where nobody may or can read it."""
_NOWHERE = Hardware(None, 0, 0, "", 0, "")


def options(
    obj: Object, profiles: Sequence[Object], models: Sequence[Object], text: Text, now: datetime
) -> list[OptionView]:
    """Best first. Empty where the status is of another release."""
    with suppress(Malformed, Invalid):
        active = obj.get("status", {}).get("active")
        snapshot = _snapshot(parse.deployment(dict(obj)), profiles, models, text)
        return [OptionView.of(option, active) for option in weigh(snapshot, now)[1]]
    return []


def _snapshot(
    deployment: Deployment, profiles: Sequence[Object], models: Sequence[Object], text: Text
) -> Snapshot:
    rows = list(_rows(profiles))
    timings = tuple(row for row in rows if isinstance(row, TimingRow))
    return Snapshot(
        deployment=_limited(deployment),
        hardware=_hardware(deployment, timings),
        free_memory_mib=0,
        performance_version=PERFORMANCE_VERSION,
        models=tuple(parse.model(dict(model)) for model in models),
        timings=timings,
        qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
        task_rows=tuple(row for row in rows if isinstance(row, TasksRow)),
        prompts=given_prompts(deployment, text),
        tasks=_tasks(deployment, text),
    )


def _rows(profiles: Sequence[Object]) -> Iterator[Row]:
    """Those of this release."""
    for obj in profiles:
        with suppress(Malformed, Invalid):
            yield parse.profile_row(dict(obj))


def _limited(deployment: Deployment) -> Deployment:
    """With the memory that its pods were given, where the spec leaves that to the machine."""
    served, limits = deployment.status.active or deployment.status.target, deployment.spec.limits
    if limits.memory_mib is not None or served is None or served.memory_mib is None:
        return deployment
    limits = replace(limits, memory_mib=served.memory_mib)
    return replace(deployment, spec=replace(deployment.spec, limits=limits))


def _hardware(deployment: Deployment, timings: Sequence[TimingRow]) -> Hardware:
    """Where the rows were timed that its status names."""
    status = deployment.status
    named = {status.active.timing} if status.active else set()
    named |= {name for c in status.candidates for name in (c.timing, *c.profiles)}
    return next((row.identity.hardware for row in timings if row.name in named), _NOWHERE)


def given_prompts(deployment: Deployment, text: Text) -> PromptSource | None:
    """As `observe` sees them."""
    source = deployment.spec.profiling.prompts
    ref = source.config_map_ref
    given = texts(text(ref.name, ref.key) or "") if ref else source.inline
    return PromptSource(identity.prompts_digest(given), len(given)) if given else None


def _tasks(deployment: Deployment, text: Text) -> Any:
    source = deployment.spec.profiling.tasks
    ref = source.config_map_ref if source else None
    return tasks.seen(source, text(ref.name, ref.key) if ref else None)
