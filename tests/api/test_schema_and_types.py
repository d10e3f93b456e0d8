"""The schemas and the dataclasses say the same: names, requirements, defaults."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from helios_contract.codec import Codec, camel, layout
from helios_contract.results import ExitQuality, Resolved, Timing
from helios_operator.api import codec, parse
from helios_operator.api.crds import crds
from helios_operator.api.status import ModelStatus
from helios_operator.api.types import (
    Analysis,
    Auth,
    Candidate,
    CandidateSelector,
    ConfigMapRef,
    DeploymentSpec,
    DeploymentStatus,
    LivePrompts,
    MaintenanceWindow,
    ModelCache,
    SecretKeyRef,
    Tls,
)
from helios_operator.api.validation import admit

from tests.api.objects import minimal, put

DEPLOYMENT = crds()["HeliosDeployment"].schema["properties"]
MODEL = crds()["HeliosModel"].schema["properties"]
PROFILE = crds()["HeliosProfile"].schema["properties"]
TIMING = PROFILE["status"]["properties"]["timing"]["properties"]
QUALITY = PROFILE["status"]["properties"]["quality"]["properties"]

PAIRS = {
    "deployment spec": (DeploymentSpec, DEPLOYMENT["spec"]),
    "deployment status": (DeploymentStatus, DEPLOYMENT["status"]),
    "model status": (ModelStatus, MODEL["status"]),
    "timing": (Timing, {"properties": TIMING}),
}


def wire_name(field: Any) -> str:
    return str(field.metadata.get("wire", camel(field.name, crd=True)))


def inner_dataclass(hint: Any) -> Any:
    """The dataclass inside X | None or tuple[X, ...]; None for anything else, maps included."""
    options = [hint, *get_args(hint)]
    return next((option for option in options if is_dataclass(option)), None)


def disagreements(kind: Any, schema: dict[str, Any], path: str) -> list[str]:
    hints = get_type_hints(kind)
    names = {name: field for field, name, _ in layout(kind, crd=True)}
    found = [f"{path}: only in the type: {name}" for name in names.keys() - schema["properties"].keys()]
    found += [f"{path}: only in the schema: {name}" for name in schema["properties"].keys() - names.keys()]
    for name, field in names.items():
        nested, below = inner_dataclass(hints[field.name]), schema["properties"].get(name, {})
        below = below.get("items") or below.get("additionalProperties") or below
        if nested:
            found += disagreements(nested, below, f"{path}.{name}")
    return found


@pytest.mark.parametrize("pair", PAIRS)
def test_every_field_is_in_the_schema_and_in_the_type(pair: str) -> None:
    kind, schema = PAIRS[pair]
    assert disagreements(kind, schema, "") == []


def test_exit_quality_has_one_field_for_people_beside_the_types() -> None:
    names = {name for _, name, _ in layout(ExitQuality, crd=True)}
    assert set(QUALITY["exits"]["items"]["properties"]) - names == {"millibitsPerByte"}
    assert names <= set(QUALITY["exits"]["items"]["properties"])


@pytest.mark.parametrize(
    "kind",
    [
        Candidate,
        CandidateSelector,
        LivePrompts,
        ConfigMapRef,
        MaintenanceWindow,
        ModelCache,
        SecretKeyRef,
        Tls,
        Auth,
    ],
)
def test_what_a_type_cannot_do_without_is_required_or_defaulted(kind: Any) -> None:
    schema = next(found for found in all_schemas(DEPLOYMENT["spec"], DeploymentSpec) if found[0] is kind)[1]
    hints = get_type_hints(kind)
    for field in fields(kind):
        needed = field.default is MISSING and field.default_factory is MISSING
        needed = needed and NoneType not in get_args(hints[field.name])
        name = wire_name(field)
        if needed:
            assert name in schema.get("required", []) or "default" in schema["properties"][name], name


def all_schemas(schema: dict[str, Any], kind: Any) -> list[tuple[Any, dict[str, Any]]]:
    found = [(kind, schema)]
    hints = get_type_hints(kind)
    for field in fields(kind):
        nested = inner_dataclass(hints[field.name])
        if nested:
            below = schema["properties"][wire_name(field)]
            found += all_schemas(below.get("items", below), nested)
    return found


def test_a_status_needs_what_its_types_need() -> None:
    for kind, schema in all_schemas(DEPLOYMENT["status"], DeploymentStatus):
        hints = get_type_hints(kind)
        for field in fields(kind):
            optional = NoneType in get_args(hints[field.name])
            needed = field.default is MISSING and field.default_factory is MISSING and not optional
            if needed:
                assert wire_name(field) in schema["required"], (kind, field.name)


def test_the_defaults_of_schema_and_types_are_the_same() -> None:
    spec = parse.deployment(admit(minimal())).spec
    assert spec == DeploymentSpec(model_name="chat", candidates=(Candidate("small", "file:///models/small"),))


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("spec.rollout.analysis", {}, Analysis()),
        ("spec.modelCache", {"pvcName": "c"}, ModelCache("c")),
        ("spec.service.tls", {"secretName": "t"}, Tls("t")),
        ("spec.service.auth", {"secretName": "t"}, Auth("t")),
    ],
)
def test_the_defaults_inside_optional_objects_are_the_same(path: str, given: Any, expected: Any) -> None:
    spec = parse.deployment(admit(put(minimal(), path, given))).spec
    assert expected in (spec.rollout.analysis, spec.model_cache, spec.service.tls, spec.service.auth)


def test_a_resolved_candidate_is_the_same_in_a_job_result_and_in_a_status() -> None:
    shared = {
        "revision": "r",
        "backbone": "b",
        "numLayers": 30,
        "maxContextTokens": 2048,
        "exitsDigest": "sha256:1",
        "headKind": "mlp",
        "exitLayers": [24, 27],
    }
    resolved = Resolved("r", "b", 30, 2048, "sha256:1", "mlp", (24, 27), {24: 0.31})
    assert Codec().encode(resolved) == {**shared, "breachThresholds": {"24": 0.31}}
    assert codec.encode(resolved) == {**shared, "breachThresholdsMilli": {"24": 310}}
    assert codec.decode(Resolved, codec.encode(resolved)) == resolved
