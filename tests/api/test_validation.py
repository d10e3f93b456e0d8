"""Admission as a whole: what it adds, what it takes away, and how it words what is wrong."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from helios_operator.api import parse
from helios_operator.api.cluster_fields import unused_locally
from helios_operator.api.validation import Invalid, admit, warnings

from tests.api.objects import full, minimal, model, put, timing_profile


def refusal(obj: Any, old: Any = None) -> str:
    with pytest.raises(Invalid) as caught:
        admit(obj, old)
    return str(caught.value)


def test_admission_leaves_its_argument_alone() -> None:
    given = put(minimal(), "spec.slo", {"unknown": 1, "percentile": None})
    before = deepcopy(given)
    admitted = admit(given)
    admitted["spec"]["candidates"][0]["name"] = "other"
    assert given == before


def test_admission_of_what_was_admitted_changes_nothing() -> None:
    for obj in (minimal(), full(), model(), timing_profile()):
        assert admit(admit(obj)) == admit(obj)


def test_defaults_reach_into_objects_that_were_not_given() -> None:
    spec = admit(minimal())["spec"]
    assert spec["rollout"]["drain"] == {"preStopSeconds": 15, "timeoutSeconds": 300}
    assert parse.deployment(admit(minimal())).spec.candidates[0].trust_remote_code is False
    assert "analysis" not in spec["rollout"]


def test_a_null_is_as_good_as_absent() -> None:
    obj = put(minimal(), "spec.slo", {"percentile": None, "ttftMs": None})
    assert admit(obj)["spec"]["slo"] == {"percentile": 95, "optimizationType": "throughput"}


def test_unknown_fields_go_and_templates_stay() -> None:
    obj = put(full(), "spec.template", {"spec": {"runtimeClassName": None, "anything": [{"deep": 1}]}})
    admitted = admit(put(obj, "spec.slo.ttft", 100))
    assert "ttft" not in admitted["spec"]["slo"]
    assert admitted["spec"]["template"] == {"spec": {"runtimeClassName": None, "anything": [{"deep": 1}]}}


def test_a_whole_number_written_as_a_float_counts_as_kubectl_counts_it() -> None:
    replicas = admit(put(minimal(), "spec.replicas", 2.0))["spec"]["replicas"]
    assert replicas == 2
    assert isinstance(replicas, int)
    assert "spec.replicas: 2.5 is not an integer" in refusal(put(minimal(), "spec.replicas", 2.5))


def test_all_problems_are_named_at_once() -> None:
    obj = put(put(minimal(), "spec.slo.percentile", 200), "spec.replicas", "two")
    assert refusal(obj).splitlines() == [
        "spec.replicas: 'two' is not an integer; write an integer",
        "spec.slo.percentile: 200 is greater than the maximum of 99; use a value from 50 to 99",
    ]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.slo.optimizationType", "trouput", "did you mean throughput?"),
        ("spec.selection.policy", "pinned", "did you mean Pinned?"),
        ("spec.rollout.strategy", "Rolling", "use one of Auto, Surge, Recreate, InPlace"),
        ("spec.candidates[0].revision", 1234567, "1234567 is not a string; write it in quotes"),
        ("spec.replicas", "3", "'3' is not an integer; write it without quotes"),
        ("spec.rollout.paused", "yes", "'yes' is not true or false; write true or false"),
        ("spec.candidates", {}, "{} is not a list; write a list"),
        ("spec.slo", [], "[] is not a mapping; write a mapping"),
        ("spec.candidates[0].uri", "", "is empty; fill it in"),
        ("spec.candidates", [], "is empty; fill it in"),
        ("spec.modelName", "m" * 254, "has 254 characters; use at most 253"),
        ("spec.candidates[0].uri", ..., "is missing; add it (where the checkpoint is"),
        ("spec.reassessment.interval", "6 hours", "'6 hours' is not a duration from 1s to 8760h; write for"),
        ("spec", "chat", "'chat' is not a mapping; write a mapping"),
    ],
)
def test_a_problem_names_its_fix(path: str, value: Any, expected: str) -> None:
    assert f"{path}: {expected}" in refusal(put(minimal(), path, value)) or expected in refusal(
        put(minimal(), path, value)
    )


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ([], "object: not a mapping; write apiVersion, kind, metadata and spec"),
        ({}, "apiVersion: is missing; write helios.dev/v1alpha1"),
        ({"apiVersion": "v1", "kind": "Pod"}, "apiVersion: 'v1' is not known; write helios.dev/v1alpha1"),
        ({"apiVersion": "helios.dev/v1alpha1"}, "kind: is missing; write one of HeliosDeployment"),
        (
            {"apiVersion": "helios.dev/v1alpha1", "kind": "HeliosDeploy"},
            "kind: 'HeliosDeploy' is not known; did you mean HeliosDeployment?",
        ),
        ({"apiVersion": "helios.dev/v1alpha1", "kind": ["x"]}, "kind: ['x'] is not known"),
    ],
)
def test_an_object_of_another_kind(obj: Any, expected: str) -> None:
    assert expected in refusal(obj)


@pytest.mark.parametrize("metadata", [None, {}, {"name": ""}, {"name": 7}, "chat"])
def test_an_object_without_a_name(metadata: Any) -> None:
    assert "metadata.name: is missing; give the object a name" in refusal({**minimal(), "metadata": metadata})


def test_labels_are_strings() -> None:
    obj = put(minimal(), "metadata.labels", {"tier": 1})
    assert "metadata.labels.tier: 1 is not a string; write it in quotes" in refusal(obj)


def test_an_object_without_a_spec() -> None:
    assert "spec: is missing" in refusal(put(minimal(), "spec", ...))


def test_unknown_fields_are_named_with_what_was_meant() -> None:
    obj = put(minimal(), "spec.slo", {"ttftms": 1})
    obj = put(put(obj, "spec.candidates[0].exitlayer", [1]), "spec.colour", "red")
    found = {problem.field: problem.fix for problem in warnings(obj)}
    assert found["spec.slo.ttftms"] == "did you mean ttftMs?"
    assert found["spec.candidates[0].exitlayer"] == "did you mean exitLayers?"
    assert found["spec.colour"].startswith("the fields here are authSecret, candidateSelector")


def test_known_fields_labels_and_templates_bring_no_warning() -> None:
    for obj in (minimal(), full(), model(), timing_profile()):
        assert warnings(obj) == []


def test_one_machine_names_the_fields_of_a_cluster() -> None:
    assert unused_locally(minimal()) == []
    assert {problem.field for problem in unused_locally(full())} == {
        "spec.template",
        "spec.profiling.template",
        "spec.modelCache",
        "spec.authSecret",
    }
