"""The types back to objects (dicts): what is written to the API, or to the store of one machine.

Called by whoever applies a Plan. It must not decide or measure: names, owners and times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helios_contract.results import Timing
from helios_contract.serves import AUTO
from helios_contract.tasks import passes

from helios_operator.api.codec import encode
from helios_operator.api.models import Model
from helios_operator.api.reasons import Reason
from helios_operator.api.rows import (
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
from helios_operator.api.timestamps import format_time
from helios_operator.api.types import Deployment, DeploymentStatus, Owner

API_VERSION = "helios.dev/v1alpha1"
MESSAGE_LIMIT = 32768
"""Characters, the CRDs' maxLength of every message."""

Json = dict[str, Any]


def deployment(record: Deployment) -> Json:
    metadata = {
        "name": record.name,
        "namespace": record.namespace,
        "uid": record.uid,
        "generation": record.generation,
        "annotations": dict(record.annotations),
        "labels": dict(record.labels),
    }
    return _object("HeliosDeployment", metadata, encode(record.spec), status(record.status))


def status(record: DeploymentStatus) -> Json:
    document: Json = _clipped(encode(record))
    return document


def model(record: Model) -> Json:
    metadata = {
        "name": record.name,
        "namespace": record.namespace,
        "generation": record.generation,
        "labels": dict(record.labels),
    }
    spec = encode(record.candidate)
    del spec["name"]
    published = encode(record.published)
    accelerator = published.pop("accelerator", None)
    if "tokensPerSecond" in published:
        published["tokensPerSecond"] = {"value": published["tokensPerSecond"]}
        if accelerator:
            published["tokensPerSecond"]["accelerator"] = accelerator
    if published:
        spec["published"] = published
    return _object("HeliosModel", metadata, spec, model_status(record.status))


def model_status(record: ModelStatus) -> Json:
    document: Json = _clipped(encode(record))
    return document


def profile(row: Row, *, namespace: str = "default", owners: Sequence[Owner] = ()) -> Json:
    """The HeliosProfile that holds a row. `owners`: the HeliosDeployments that use it."""
    match row:
        case TimingRow():
            return timing(row, namespace, owners)
        case QualityRow():
            return quality(row, namespace, owners)
        case TasksRow():
            return tasks(row, namespace, owners)


def timing(row: TimingRow, namespace: str = "default", owners: Sequence[Owner] = ()) -> Json:
    spec = {"kind": "Timing", "timing": timing_identity(row.identity)}
    result = _row_status(row)
    if row.measured != Timing():
        result["timing"] = encode(row.measured)
    return _object("HeliosProfile", _row_metadata(row, "timing", namespace, owners), spec, result)


def quality(row: QualityRow, namespace: str = "default", owners: Sequence[Owner] = ()) -> Json:
    spec = {"kind": "Quality", "quality": quality_identity(row.identity)}
    result = _row_status(row)
    if row.exits:
        result["quality"] = _quality_measurement(row)
    return _object("HeliosProfile", _row_metadata(row, "quality", namespace, owners), spec, result)


def tasks(row: TasksRow, namespace: str = "default", owners: Sequence[Owner] = ()) -> Json:
    """With the number of passes beside the bits, for people."""
    spec = {"kind": "Tasks", "tasks": tasks_identity(row.identity)}
    result = _row_status(row)
    if row.passes:
        passed = sum(passes(row.passes, row.tasks))
        result["tasks"] = {"tasks": row.tasks, "passes": row.passes, "passed": passed}
    return _object("HeliosProfile", _row_metadata(row, "tasks", namespace, owners), spec, result)


def timing_identity(identity: TimingIdentity) -> Json:
    hardware = encode(identity.hardware)
    del hardware["dtype"]
    context = {"maxContextTokens": identity.max_context_tokens} if identity.max_context_tokens else {}
    return {
        "backbone": {"uri": identity.model_uri, "revision": identity.revision},
        "dtype": identity.dtype,
        "headKinds": list(identity.head_kinds),
        "hardware": hardware,
        "performanceVersion": identity.performance_version,
        **context,
        **_precision(identity),
    }


def quality_identity(identity: QualityIdentity) -> Json:
    return {
        "candidate": {
            "uri": identity.model_uri,
            "revision": identity.revision,
            "exitsDigest": identity.exits_digest,
        },
        "promptsDigest": identity.prompts_digest,
        **_precision(identity),
    }


def tasks_identity(identity: TasksIdentity) -> Json:
    return {
        "candidate": {
            "uri": identity.model_uri,
            "revision": identity.revision,
            "exitsDigest": identity.exits_digest,
        },
        "layerBudget": identity.layer_budget,
        "tasksDigest": identity.tasks_digest,
        **_precision(identity),
    }


def _precision(identity: TimingIdentity | QualityIdentity | TasksIdentity) -> Json:
    """Nothing where it is the reference: names are made of this, and rows are older than precisions."""
    named = {"weightDtype": identity.weight_dtype, "kvCacheDtype": identity.kv_cache_dtype}
    return {field: dtype for field, dtype in named.items() if dtype != AUTO}


def _object(kind: str, metadata: Json, spec: Json, status: Json) -> Json:
    metadata = {key: value for key, value in metadata.items() if value not in ("", 0, {}, [])}
    obj: Json = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    return {**obj, "status": status} if status else obj


def _clipped(value: Any) -> Any:
    """Messages cut to what the schema takes: a status that is refused whole would say nothing at all."""
    if isinstance(value, list):
        return [_clipped(item) for item in value]
    if isinstance(value, dict):
        return {key: _clip(item) if key == "message" else _clipped(item) for key, item in value.items()}
    return value


def _clip(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def _row_metadata(row: Row, kind: str, namespace: str, owners: Sequence[Owner]) -> Json:
    return {
        "name": row.name,
        "namespace": namespace,
        "labels": {"helios.dev/kind": kind},
        "ownerReferences": [_owner_reference(owner) for owner in owners],
    }


def _owner_reference(owner: Owner) -> Json:
    """Not as controller, and without holding up the owner's deletion: several deployments share a row."""
    return {
        "apiVersion": API_VERSION,
        "kind": "HeliosDeployment",
        "name": owner.name,
        "uid": owner.uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }


def _row_status(row: Row) -> Json:
    result: Json = {"phase": row.phase.value}
    if row.message:
        result["message"] = _clip(row.message)
    if row.completed:
        result["completionTime"] = format_time(row.completed)
        result["conditions"] = [_complete_condition(row, result["completionTime"])]
    return result


def _complete_condition(row: Row, time: str) -> Json:
    complete = row.phase is RowPhase.COMPLETE
    return {
        "type": "Complete",
        "status": "True" if complete else "False",
        "reason": (Reason.MEASURED if complete else Reason.MEASUREMENT_FAILED).value,
        "message": _clip(row.message),
        "lastTransitionTime": time,
    }


def _quality_measurement(row: QualityRow) -> Json:
    """With bits per byte beside the totals, for people: readers take the totals."""
    per_byte = max(row.bytes, 1)
    return {
        **encode(row.texts),
        "fullDepthMillibitsPerByte": row.exits[-1].millibits // per_byte,
        "exits": [{**encode(depth), "millibitsPerByte": depth.millibits // per_byte} for depth in row.exits],
    }
