"""Admitted objects (dicts) to the types that decisions read: `deployment`, `model`, `profile_row`.

Called wherever objects are observed. It expects what `validation.admit` returned and must not validate again;
but a status may come from another release: codec.Malformed, a ValueError, names what cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from helios_contract.results import ExitQuality, Texts, Timing

from helios_operator.api.codec import decode
from helios_operator.api.rows import (
    Hardware,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TimingIdentity,
    TimingRow,
)
from helios_operator.api.timestamps import parse_time
from helios_operator.api.types import (
    Candidate,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Model,
    ModelStatus,
    Published,
)

Json = Mapping[str, Any]


def deployment(obj: Json) -> Deployment:
    metadata, spec = obj["metadata"], obj["spec"]
    return Deployment(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=decode(DeploymentSpec, {"modelName": metadata["name"], **spec}),
        status=deployment_status(obj.get("status") or {}),
        annotations=dict(metadata.get("annotations") or {}),
        labels=dict(metadata.get("labels") or {}),
    )


def deployment_status(document: Json) -> DeploymentStatus:
    return decode(DeploymentStatus, document)


def model(obj: Json) -> Model:
    metadata, spec = obj["metadata"], obj["spec"]
    published = dict(spec.get("published") or {})
    speed = published.pop("tokensPerSecond", None) or {}
    return Model(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        labels=dict(metadata.get("labels") or {}),
        candidate=decode(Candidate, {**spec, "name": metadata["name"]}),
        published=replace(
            decode(Published, published),
            tokens_per_second=speed.get("value"),
            accelerator=speed.get("accelerator"),
        ),
        generation=metadata.get("generation", 0),
        status=decode(ModelStatus, obj.get("status") or {}),
    )


def profile_row(obj: Json) -> TimingRow | QualityRow:
    """The row that a HeliosProfile holds, measured or still to be."""
    name, spec, status = obj["metadata"]["name"], obj["spec"], obj.get("status") or {}
    if spec["kind"] == "Timing":
        blank: TimingRow | QualityRow = TimingRow(name, timing_identity(spec["timing"]), RowPhase.PENDING)
    else:
        blank = QualityRow(name, quality_identity(spec["quality"]), RowPhase.PENDING)
    completed = status.get("completionTime")
    row = replace(
        blank,
        phase=RowPhase(status.get("phase", "Pending")),
        message=status.get("message", ""),
        completed=parse_time(completed) if completed else None,
    )
    if isinstance(row, TimingRow):
        return with_timing(row, status["timing"]) if "timing" in status else row
    return with_quality(row, status["quality"]) if "quality" in status else row


def timing_identity(document: Json) -> TimingIdentity:
    return TimingIdentity(
        model_uri=document["backbone"]["uri"],
        revision=document["backbone"]["revision"],
        dtype=document["dtype"],
        head_kinds=tuple(document["headKinds"]),
        hardware=decode(Hardware, {"dtype": document["dtype"], **document["hardware"]}),
        performance_version=document["performanceVersion"],
    )


def quality_identity(document: Json) -> QualityIdentity:
    candidate = document["candidate"]
    return QualityIdentity(
        model_uri=candidate["uri"],
        revision=candidate["revision"],
        exits_digest=candidate.get("exitsDigest", ""),
        prompts_digest=document["promptsDigest"],
    )


def with_timing(row: TimingRow, document: Json) -> TimingRow:
    """The row with `status.timing`."""
    return replace(row, **vars(decode(Timing, document)))


def with_quality(row: QualityRow, document: Json) -> QualityRow:
    """The row with `status.quality`."""
    measured = decode(_Measured, document)
    return replace(row, **vars(measured))


@dataclass(frozen=True, kw_only=True)
class _Measured(Texts):
    """`status.quality`."""

    exits: tuple[ExitQuality, ...]
