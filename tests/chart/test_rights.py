"""The operator's rights: no more than it needs, and no less than what it renders asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helios_operator.render import Manifest

from tests.chart import chart
from tests.render import objects

_PLURALS = {"NetworkPolicy": "networkpolicies"}
_CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def test_no_verb_and_no_resource_is_a_wildcard() -> None:
    for _, rule in _rules(chart.render()):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_secrets_are_never_listed_and_pods_never_written() -> None:
    verbs = _verbs(chart.render())
    assert verbs["", "secrets"] == {"get", "create"}
    assert verbs["", "pods"] == {"list", "watch"}
    assert ("rbac.authorization.k8s.io", "roles") not in verbs


def test_what_the_operator_renders_it_may_write() -> None:
    verbs = _verbs(chart.render())
    hd = objects.deployment(replicas=2)
    for manifest in objects.everything(hd):
        granted = verbs[_resource(manifest)]
        needed = {"create"} if manifest["kind"] in ("Secret", "Job") else {"create", "patch"}
        assert needed <= granted, manifest["kind"]


@pytest.mark.parametrize("resource", ["heliosdeployments", "heliosprofiles", "heliosmodels"])
def test_status_is_written_apart_from_the_spec(resource: str) -> None:
    verbs = _verbs(chart.render())
    assert verbs["helios.dev", f"{resource}/status"] == {"patch"}
    assert ("patch" in verbs["helios.dev", resource]) == (resource == "heliosprofiles")


def test_in_some_namespaces_the_same_rules_hold_there_and_nodes_may_be_read() -> None:
    everywhere = chart.only_role(chart.render(), "ClusterRole")
    manifests = chart.render({"watch": {"namespaces": ["team-a", "team-b"]}})
    roles = chart.of_kind(manifests, "Role")
    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    nodes = chart.only_role(manifests, "ClusterRole")["rules"]
    assert [rule["resources"] for rule in nodes] == [["nodes"]]
    for role in roles:
        assert role["rules"] + nodes == everywhere["rules"]
    assert len(chart.of_kind(manifests, "RoleBinding")) == 2


def test_an_installation_may_have_no_right_in_the_cluster() -> None:
    values = {
        "watch": {"namespaces": ["team-a"]},
        "crds": {"install": False},
        "rbac": {"nodes": False, "aggregate": False},
    }
    assert not {manifest["kind"] for manifest in chart.render(values)} & _CLUSTER_WIDE


def test_every_binding_is_of_the_account_that_runs_the_operator() -> None:
    for values in (
        {},
        {"watch": {"namespaces": ["team-a"]}},
        {"serviceAccount": {"create": False, "name": "mine"}},
    ):
        manifests = chart.render(values)
        account = chart.only(manifests, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
        bindings = chart.of_kind(manifests, "ClusterRoleBinding") + chart.of_kind(manifests, "RoleBinding")
        assert bindings
        for binding in bindings:
            (subject,) = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (account, chart.NAMESPACE)


def test_users_roles_are_extended_by_what_users_write() -> None:
    roles = {role["metadata"]["name"]: role for role in chart.of_kind(chart.render(), "ClusterRole")}
    viewing = {verb for rule in roles["helios-system:helios-view"]["rules"] for verb in rule["verbs"]}
    assert viewing == {"get", "list", "watch"}
    edited = {
        resource for rule in roles["helios-system:helios-edit"]["rules"] for resource in rule["resources"]
    }
    assert not any(resource.endswith("/status") for resource in edited)


def _rules(manifests: list[Manifest]) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Each rule, and whether it is the operator's."""
    for manifest in manifests:
        if manifest["kind"] in ("Role", "ClusterRole"):
            yield from ((chart.is_operators(manifest), rule) for rule in manifest["rules"])


def _verbs(manifests: list[Manifest]) -> dict[tuple[str, str], set[str]]:
    """The operator's verbs by (group, resource)."""
    granted: dict[tuple[str, str], set[str]] = {}
    for is_operators, rule in _rules(manifests):
        if is_operators:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    granted.setdefault((group, resource), set()).update(rule["verbs"])
    return granted


def _resource(manifest: Manifest) -> tuple[str, str]:
    group, slash, _ = manifest["apiVersion"].partition("/")
    kind = manifest["kind"]
    return (group if slash else ""), _PLURALS.get(kind, f"{kind.lower()}s")
