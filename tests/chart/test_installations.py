"""Wherever and under whatever name it is installed: beside another one, under digits, with values emptied, on
platforms that give out ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart import chart
from tests.manifests import assert_valid

Manifest = dict[str, Any]

_VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
_ALL = {
    "metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
    "networkPolicy": {"metricsNamespaces": ["789"], "clientNamespaces": ["1e3"]},
}
_THEIRS = ("ServiceMonitor", "PodMonitor")


def _identities(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
    """What can exist once, but for the CRDs, which belong to one installation of a cluster."""
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in manifests
        if each["kind"] != "CustomResourceDefinition"
    }


@pytest.mark.parametrize("values", [{}, {"watch": {"namespaces": ["team-a", "team-b"]}}], ids=["all", "some"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("helios", "team-x", ""), ("helios", "team-y", "")),
        (("r", "c", "a-b"), ("r", "b-c", "a")),
        (("r", "a", "b"), ("r", "a-b", "b")),
    ],
)
def test_two_installations_share_no_object(
    values: dict[str, Any], one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    first, second = (
        _identities(chart.render(values | {"fullnameOverride": name}, release, namespace=namespace))
        for release, namespace, name in (one, other)
    )
    assert first
    assert not first & second


def test_bindings_are_of_the_roles_that_are_rendered() -> None:
    for values in ({}, {"watch": {"namespaces": ["team-a"]}}):
        manifests = chart.render(values)
        roles = {
            (each["kind"], each["metadata"]["name"]) for each in manifests if each["kind"].endswith("Role")
        }
        bindings = [each["roleRef"] for each in manifests if each["kind"].endswith("RoleBinding")]
        assert bindings
        assert {(each["kind"], each["name"]) for each in bindings} <= roles


def test_what_stands_in_the_releases_namespace_keeps_its_name() -> None:
    """An upgrade replaces the roles; it must not replace the operator, its account or its Service."""
    named = {(each["kind"], each["metadata"]["name"]) for each in chart.render()}
    assert {("Deployment", "helios"), ("ServiceAccount", "helios"), ("Service", "helios-operator")} <= named


@pytest.mark.parametrize(
    ("release", "namespace"),
    [("123", "456"), ("0x10", "0123"), ("null", "null"), ("true", "no"), ("1e3", "1e3")],
)
def test_names_that_yaml_takes_for_something_else_stay_names(release: str, namespace: str) -> None:
    values = _ALL | {
        "fullnameOverride": release,
        "watch": {"namespaces": [namespace, "12"]},
        "images": {
            "pullSecrets": [{"name": "1"}],
            "registry": "1",
            "server": {"repository": "2", "tag": "3"},
        },
        "operator": {"priorityClassName": "1", "nodeSelector": {"a": "1"}, "podLabels": {"a": "1e3"}},
    }
    manifests = chart.render(values, release, namespace=namespace)
    for manifest in (each for each in manifests if each["kind"] != "CustomResourceDefinition"):
        assert list(_not_text(manifest, manifest["kind"])) == []
        if manifest["kind"] not in _THEIRS:
            assert_valid(manifest)
    spaces = {each["metadata"].get("namespace") for each in manifests}
    assert spaces == {namespace, "12", None}
    arguments = chart.only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {f"--watch-namespace={namespace}", f"--operator-name={release}"} <= set(arguments)


@pytest.mark.parametrize("release", ["123", "helios", "1-helios", "9" * 53])
def test_a_services_name_begins_with_a_letter_and_the_test_calls_it(release: str) -> None:
    manifests = chart.render(release=release)
    name = chart.only(manifests, "Service")["metadata"]["name"]
    assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert f"http://{name}:8080/" in chart.only(manifests, "Pod")["spec"]["containers"][0]["args"][0]


def _not_text(value: Any, path: str) -> Iterator[str]:
    """Names, namespaces, labels and arguments that are no strings."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _not_text(below, f"{path}.{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _not_text(below, f"{path}[{i}]")
    elif not isinstance(value, str) and re.search(
        r"\.(name|namespace|image|interval|serviceAccountName|priorityClassName)$|[lL]abels\.|elector\.|args\[",
        path,
    ):
        yield f"{path}: {value!r}"


def _places(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from _places(value, (*path, name))


@pytest.mark.parametrize("path", list(_places(_VALUES)), ids=".".join)
def test_a_value_that_is_emptied_is_refused_by_its_name_or_harmless(path: tuple[str, ...]) -> None:
    values: Any = None
    for name in reversed(path):
        values = {name: values}
    try:
        manifests = chart.render(values)
    except chart.RefusedError as refusal:
        said = str(refusal)
    else:
        if "resources" not in path:
            assert manifests == chart.render(), "it is as if it had not been written"
        for manifest in (each for each in manifests if each["kind"] != "CustomResourceDefinition"):
            assert_valid(manifest)
        return
    assert re.search(rf"missing propert(y|ies) .*'{path[-1]}'", said), said
    assert "nil pointer" not in said


def test_no_user_and_no_group_is_chosen_for_a_platform_that_chooses_them() -> None:
    text = json.dumps(chart.render(_ALL))
    assert not re.search(r'"(runAsUser|runAsGroup|fsGroup|supplementalGroups)"', text)
