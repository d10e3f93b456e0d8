"""The limits document: helios.v1.Limits as the engine's limits and back, and the file that a pod reads at
start.

Called by `rpc.control` and `serve`. The JSON form and the message are one format, so that a pod which
restarts comes back as what Control last made it. It checks form only; what a model allows, the engine says.
"""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import json_format
from helios_proto.v1 import control_pb2 as pb

from helios_server.engine.limits import AuditLimits, Baseline, BundleSpec, CapacityReport, EngineLimits
from helios_server.errors import InvalidRequest

_UNKNOWN_FIELD = re.compile(r'has no field named "(?P<name>[^"]*)" at "Limits(?P<where>[^"]*)"')


def from_proto(message: pb.Limits) -> EngineLimits:
    """LimitsRefused names the field that is out of range."""
    audit = message.audit
    return EngineLimits(
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
        audit=AuditLimits(
            percent=audit.percent,
            bundles=tuple(
                BundleSpec(bundle.candidate, bundle.uri, bundle.digest) for bundle in audit.bundles
            ),
            quality=_baseline(audit, "quality"),
            confidence=_baseline(audit, "confidence"),
        ),
        live_prompts=message.live_prompts,
        breach_threshold=message.breach_threshold,
        tokens_per_request=message.tokens_per_request,
    )


def to_proto(limits: EngineLimits) -> pb.Limits:
    audit = limits.audit
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
            percent=audit.percent,
            bundles=[pb.Bundle(candidate=b.candidate, uri=b.uri, digest=b.digest) for b in audit.bundles],
            quality=_baseline_to_proto(audit.quality),
            confidence=_baseline_to_proto(audit.confidence),
        ),
        live_prompts=limits.live_prompts,
        breach_threshold=limits.breach_threshold,
        tokens_per_request=limits.tokens_per_request,
    )


def capacity_to_proto(capacity: CapacityReport) -> pb.Capacity:
    return pb.Capacity(
        layers_loaded=capacity.layers_loaded,
        total_layers=capacity.total_layers,
        max_batch_size=capacity.max_batch_size,
        kv_capacity_tokens=capacity.kv_capacity_tokens,
        weight_bytes=capacity.weight_bytes,
        kv_bytes=capacity.kv_bytes,
        process_start_bytes=capacity.process_start_bytes,
        activation_peak_bytes=capacity.activation_peak_bytes,
    )


def read(path: Path) -> EngineLimits:
    """The limits in a file. InvalidRequest names the file, or the field in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("limits", f"{path} cannot be read ({error})", "Give a limits.json") from None
    try:
        message = json_format.Parse(text, pb.Limits())
    except json_format.ParseError as error:
        raise _malformed(path, str(error)) from None
    return from_proto(message)


def _malformed(path: Path, message: str) -> InvalidRequest:
    unknown = _UNKNOWN_FIELD.search(message)
    if unknown is None:
        return InvalidRequest("limits", f"{path} is malformed ({message.splitlines()[0]})", "Correct it")
    fields = pb.Limits.DESCRIPTOR.fields if not unknown["where"] else ()
    known = ", ".join(field.json_name for field in fields)
    field = f"limits{unknown['where']}.{unknown['name']}"
    return InvalidRequest(
        field, f"{path} has a field that does not exist", f"Use one of {known}" if known else "Remove it"
    )


def _baseline(audit: pb.Audit, name: str) -> Baseline | None:
    if not audit.HasField(name):
        return None
    message = getattr(audit, name)
    return Baseline(message.mean, message.standard_deviation)


def _baseline_to_proto(baseline: Baseline | None) -> pb.Baseline | None:
    if baseline is None:
        return None
    return pb.Baseline(mean=baseline.mean, standard_deviation=baseline.standard_deviation)
