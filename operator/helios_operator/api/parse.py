"""Admitted objects (dicts) to the types that decisions read: `deployment`, `model`, `profile_row`.

Called wherever objects are observed, and by whoever reads a profiling Job's result. It expects what
`validation.admit` returned and must not validate again; a KeyError here is a bug, never a user's mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from helios_server.planning.memory import MemoryFacts
from helios_server.planning.timing import HeadCost, StepTimeFit

from helios_operator.api.codec import decode
from helios_operator.api.rows import (
    EnergyCost,
    ExitQuality,
    Hardware,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TimingIdentity,
    TimingPoint,
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
    Resolved,
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


def resolved(document: Json) -> Resolved:
    """What an inspection found. It says thresholds as fractions, `status.candidates[].resolved` in
    thousandths."""
    thresholds = document.get("breachThresholds", {})
    found = decode(Resolved, document)
    if not thresholds:
        return found
    return replace(found, breach_thresholds={int(layer): float(level) for layer, level in thresholds.items()})


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
    """The row with a timing measurement: `status.timing`, or a timing Job's result document."""
    energy = document.get("energy")
    return replace(
        row,
        fit=_fit(document["fit"]) if "fit" in document else None,
        memory=decode(MemoryFacts, document["memory"]) if "memory" in document else None,
        exit_bytes=dict(document.get("exitBytes", {})),
        audit_bytes=document.get("auditBytes", 0),
        energy=_energy(energy) if energy else None,
        points=tuple(decode(TimingPoint, point) for point in document.get("points", ())),
    )


def with_quality(row: QualityRow, document: Json) -> QualityRow:
    """The row with a quality measurement: `status.quality`, or a quality Job's totals with one of its
    rows."""
    return replace(
        row,
        prompts=document["prompts"],
        tokens=document["tokens"],
        bytes=document["bytes"],
        prompt_bytes=tuple(document.get("promptBytes", ())),
        exits=tuple(decode(ExitQuality, depth) for depth in document["exits"]),
    )


def _fit(document: Json) -> StepTimeFit:
    return StepTimeFit(
        step_ns=document["stepNs"],
        per_layer_ns=document["perLayerNs"],
        per_layer_row_ns=document["perLayerRowNs"],
        per_layer_kv_token_ns=document["perLayerKvTokenNs"],
        heads={kind: decode(HeadCost, cost) for kind, cost in document.get("head", {}).items()},
        error_percent=document.get("errorPercent", 0),
    )


def _energy(document: Json) -> EnergyCost:
    return EnergyCost(
        source=document["source"],
        joules_per_megatoken={
            (point["layerBudget"], point["rows"]): point["joulesPerMegatoken"]
            for point in document.get("points", ())
        },
        idle_milliwatts=document.get("idleMilliwatts", 0),
    )
