"""The limits document: ServingLimits as helios.v1.Limits, and as the JSON that a pod reads at its start.

Called by `control.client`, `control.telemetry` and the runtimes that write the document. One mapping for
the file and for the wire, so that a restarted pod comes back as what it was told.
"""

from __future__ import annotations

from google.protobuf import json_format
from helios_proto.v1 import control_pb2 as pb

from helios_operator.decide.snapshot import Baseline, BundleRef, ServingLimits
from helios_operator.errors import StateError


def to_proto(limits: ServingLimits) -> pb.Limits:
    return pb.Limits(
        generation=limits.generation,
        candidate=limits.candidate,
        model_uri=limits.model_uri,
        model_revision=limits.model_revision,
        exits_uri=limits.exits_uri,
        exits_digest=limits.exits_digest,
        layer_budget=limits.layer_budget,
        max_batch_size=limits.max_batch_size,
        memory_mib=limits.memory_mib,
        max_queue_size=limits.max_queue_size,
        exit_layers=limits.exit_layers,
        audit=pb.Audit(
            percent=limits.audit_percent,
            bundles=[pb.Bundle(candidate=b.candidate, uri=b.uri, digest=b.digest) for b in limits.bundles],
            quality=_baseline_to_proto(limits.quality_baseline),
            confidence=_baseline_to_proto(limits.confidence_baseline),
        ),
        live_prompts=limits.live_prompts,
        breach_threshold=limits.breach_threshold,
        tokens_per_request=limits.tokens_per_request,
    )


def from_proto(message: pb.Limits) -> ServingLimits:
    audit = message.audit
    return ServingLimits(
        generation=message.generation,
        candidate=message.candidate,
        model_uri=message.model_uri,
        model_revision=message.model_revision,
        exits_uri=message.exits_uri,
        exits_digest=message.exits_digest,
        layer_budget=message.layer_budget,
        max_batch_size=message.max_batch_size,
        memory_mib=message.memory_mib,
        max_queue_size=message.max_queue_size,
        exit_layers=tuple(message.exit_layers),
        audit_percent=audit.percent,
        bundles=tuple(BundleRef(b.candidate, b.uri, b.digest) for b in audit.bundles),
        tokens_per_request=message.tokens_per_request,
        quality_baseline=_baseline_from_proto(audit.quality) if audit.HasField("quality") else None,
        confidence_baseline=_baseline_from_proto(audit.confidence) if audit.HasField("confidence") else None,
        live_prompts=message.live_prompts,
        breach_threshold=message.breach_threshold,
    )


def to_json(limits: ServingLimits) -> str:
    return json_format.MessageToJson(to_proto(limits), indent=1) + "\n"


def from_json(text: str, where: str) -> ServingLimits:
    """StateError names `where` when the text is not a limits document."""
    try:
        return from_proto(json_format.Parse(text, pb.Limits()))
    except json_format.ParseError as error:
        raise StateError(
            where, f"is damaged ({error})", "restore the file, or delete the revision's folder"
        ) from None


def _baseline_to_proto(baseline: Baseline | None) -> pb.Baseline | None:
    if baseline is None:
        return None
    return pb.Baseline(mean=baseline.mean, standard_deviation=baseline.standard_deviation)


def _baseline_from_proto(message: pb.Baseline) -> Baseline:
    return Baseline(message.mean, message.standard_deviation)
