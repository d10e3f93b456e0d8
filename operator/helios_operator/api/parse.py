"""Admitted objects (dicts) to the types that decisions read: `deployment`, `model`, `profile_row`.

Called wherever objects are observed. It must not validate: the schema did. But a status, or a whole object,
may be of another release: `deployment`, `model` and `profile_row` raise Malformed, which names what they
cannot read, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from helios_contract.results import ExitQuality, Texts, Timing
from helios_contract.serves import AUTO
from helios_contract.tasks import passes

from helios_operator.api.codec import Malformed, decode
from helios_operator.api.identity import quality_name, tasks_name, timing_name
from helios_operator.api.models import Model, Published
from helios_operator.api.rows import (
    Hardware,
    QualityIdentity,
    QualityRow,
    Row,
    RowPhase,
    TasksIdentity,
    TasksRow,
    TimingIdentity,
    TimingRow,
)
from helios_operator.api.status import ModelStatus
from helios_operator.api.types import Candidate, Deployment, DeploymentSpec, DeploymentStatus

Json = Mapping[str, Any]
_DERIVED = re.compile("[kqt]-[0-9a-f]{12}")


@dataclass(frozen=True)
class RowStatus:
    """What the status of every HeliosProfile has, whatever was measured."""

    phase: RowPhase = RowPhase.PENDING
    message: str = ""
    completion_time: datetime | None = None


def deployment(obj: Json) -> Deployment:
    with _shape_known():
        metadata, spec = obj["metadata"], obj["spec"]
        return Deployment(
            name=metadata["name"],
            namespace=metadata.get("namespace", "default"),
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 0),
            spec=decode(DeploymentSpec, {"modelName": metadata["name"], **spec}, "spec"),
            status=deployment_status(obj.get("status") or {}),
            annotations=dict(metadata.get("annotations") or {}),
            labels=dict(metadata.get("labels") or {}),
        )


def deployment_status(document: Json) -> DeploymentStatus:
    return decode(DeploymentStatus, document, "status")


def model(obj: Json) -> Model:
    with _shape_known():
        metadata, spec = obj["metadata"], obj["spec"]
        published = dict(spec.get("published") or {})
        speed = published.pop("tokensPerSecond", None) or {}
        return Model(
            name=metadata["name"],
            namespace=metadata.get("namespace", "default"),
            labels=dict(metadata.get("labels") or {}),
            candidate=decode(Candidate, {**spec, "name": metadata["name"]}, "spec"),
            published=replace(
                decode(Published, published, "spec.published"),
                tokens_per_second=speed.get("value"),
                accelerator=speed.get("accelerator"),
            ),
            generation=metadata.get("generation", 0),
            status=decode(ModelStatus, obj.get("status") or {}, "status"),
        )


def profile_row(obj: Json) -> Row:
    """The row that a HeliosProfile holds, measured or still to be."""
    with _shape_known():
        name, spec, status = obj["metadata"]["name"], obj["spec"], obj.get("status") or {}
        told = decode(RowStatus, status, "status")
        row: Row
        match spec["kind"]:
            case "Timing":
                row = TimingRow(name, timing_identity(spec["timing"]), told.phase)
                row = with_timing(row, status["timing"]) if "timing" in status else row
            case "Quality":
                row = QualityRow(name, quality_identity(spec["quality"]), told.phase)
                row = with_quality(row, status["quality"]) if "quality" in status else row
            case "Tasks":
                row = TasksRow(name, tasks_identity(spec["tasks"]), told.phase)
                row = with_tasks(row, status["tasks"]) if "tasks" in status else row
            case other:
                raise Malformed("spec.kind", f"is {other!r}, which is none of Timing, Quality, Tasks")
        _is_what_its_name_says(row)
        return replace(row, message=told.message, completed=told.completion_time)


def _is_what_its_name_says(row: Row) -> None:
    """Older CRDs do not keep what is newer of an identity: the row would pass for another one's."""
    match row:
        case TimingRow():
            own = timing_name(row.identity)
        case QualityRow():
            own = quality_name(row.identity)
        case TasksRow():
            own = tasks_name(row.identity)
    if _DERIVED.fullmatch(row.name) and row.name != own:
        problem = f"is not the name of what spec says, {own}: part of it was not kept; update the CRDs"
        raise Malformed("metadata.name", problem)


def timing_identity(document: Json) -> TimingIdentity:
    return TimingIdentity(
        model_uri=document["backbone"]["uri"],
        revision=document["backbone"]["revision"],
        dtype=document["dtype"],
        head_kinds=tuple(document["headKinds"]),
        hardware=decode(Hardware, {"dtype": document["dtype"], **document["hardware"]}),
        performance_version=document["performanceVersion"],
        max_context_tokens=document.get("maxContextTokens", 0),
        **_precision(document),
    )


def quality_identity(document: Json) -> QualityIdentity:
    candidate = document["candidate"]
    return QualityIdentity(
        model_uri=candidate["uri"],
        revision=candidate["revision"],
        exits_digest=candidate.get("exitsDigest", ""),
        prompts_digest=document["promptsDigest"],
        **_precision(document),
    )


def tasks_identity(document: Json) -> TasksIdentity:
    candidate = document["candidate"]
    return TasksIdentity(
        model_uri=candidate["uri"],
        revision=candidate["revision"],
        exits_digest=candidate.get("exitsDigest", ""),
        layer_budget=document["layerBudget"],
        tasks_digest=document["tasksDigest"],
        **_precision(document),
    )


def _precision(document: Json) -> dict[str, str]:
    return {
        "weight_dtype": document.get("weightDtype", AUTO),
        "kv_cache_dtype": document.get("kvCacheDtype", AUTO),
    }


def with_timing(row: TimingRow, document: Json) -> TimingRow:
    """The row with `status.timing`."""
    return replace(row, **vars(decode(Timing, document, "status.timing")))


def with_quality(row: QualityRow, document: Json) -> QualityRow:
    """The row with `status.quality`."""
    measured = decode(_Measured, document, "status.quality")
    return replace(row, **vars(measured))


def with_tasks(row: TasksRow, document: Json) -> TasksRow:
    """The row with `status.tasks`. Malformed: its bits are not of so many tasks."""
    asked, digits = document["tasks"], document["passes"]
    try:
        passes(digits, asked)
    except ValueError as error:
        raise Malformed("status.tasks.passes", str(error)) from None
    return replace(row, tasks=asked, passes=digits)


@dataclass(frozen=True, kw_only=True)
class _Measured(Texts):
    """`status.quality`."""

    exits: tuple[ExitQuality, ...]


@contextmanager
def _shape_known() -> Iterator[None]:
    """What is not where it should be is named too."""
    try:
        yield
    except Malformed:
        raise
    except KeyError as error:
        raise Malformed(str(error.args[0]), "is missing") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Malformed("", f"is of no known shape ({error})") from None
