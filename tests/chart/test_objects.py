"""What the chart installs: valid for old and new clusters, restricted, within bounds, over a matrix of
values."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import yaml
from helios_cli.verbs import operator
from helios_operator import app
from helios_operator.render.installation import Installation
from helios_operator.render.labels import COMPONENT, SERVER
from helios_operator.render.networkpolicy import server_policy

from tests.chart import chart
from tests.manifests import NEWEST, OLDEST, assert_valid, restricted_violations
from tests.render import objects

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all monitoring": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
            "podMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Serving"}},
        }
    },
    "some namespaces": {
        "watch": {"namespaces": ["team-a", "team-b"]},
        "metrics": {"podMonitor": {"enabled": True}},
    },
    "nothing optional": {
        "watch": {"namespaces": ["team-a"]},
        "crds": {"install": False},
        "rbac": {"nodes": False, "aggregate": False},
        "networkPolicy": {"operator": False, "servers": False},
    },
    "no rights": {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "mine"}},
    "another registry": {
        "images": {
            "registry": "registry.internal/ml",
            "pullSecrets": [{"name": "pull"}],
            "operator": {"digest": "sha256:" + "0" * 64},
            "server": {"repository": "team/server", "tag": "cuda"},
        },
    },
    "a full pod": {
        "fullnameOverride": "x" * 40,
        "operator": {
            "extraArgs": ["--flag=a: b"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "podLabels": {"team": "a"},
            "podAnnotations": {"note": "b"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
        },
        "networkPolicy": {"clientNamespaces": ["apps"], "metricsNamespaces": ["monitoring"]},
    },
}
_THEIRS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose schemas are not Kubernetes'."""


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_object_is_valid_in_the_oldest_and_the_newest_kubernetes(
    values: dict[str, Any], kubernetes: str
) -> None:
    for manifest in chart.render(values, kubernetes=kubernetes):
        if manifest["kind"] not in _THEIRS:
            assert_valid(manifest)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_pod_is_restricted(values: dict[str, Any]) -> None:
    manifests = chart.render(values)
    operator = chart.only(manifests, "Deployment")["spec"]["template"]["spec"]
    assert restricted_violations(operator) == []
    assert restricted_violations(chart.only(manifests, "Pod")["spec"]) == []


@pytest.mark.parametrize("release", ["helios", "h", "r" * 53])
def test_names_and_label_values_fit(release: str) -> None:
    for manifest in chart.render(release=release):
        metadata = manifest["metadata"]
        assert len(metadata["name"]) <= 63
        assert all(len(value) <= 63 for value in (metadata.get("labels") or {}).values())


def test_one_operator_and_never_two() -> None:
    spec = chart.only(chart.render(), "Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert not chart.of_kind(chart.render(), "PodDisruptionBudget")


def test_selectors_find_the_operators_pods() -> None:
    manifests = chart.render(MATRIX["all monitoring"])
    deployment = chart.only(manifests, "Deployment")["spec"]
    found = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        chart.only(manifests, "Service")["spec"]["selector"],
        chart.only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= found.items() for selector in selectors)
    monitored = chart.only(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= chart.only(manifests, "Service")["metadata"]["labels"].items()


def test_users_labels_do_not_take_the_pod_from_its_selector() -> None:
    values = {"operator": {"podLabels": {"app.kubernetes.io/name": "other"}}}
    deployment = chart.only(chart.render(values), "Deployment")["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()


def test_the_operator_learns_from_its_arguments_what_the_values_say(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "images": {"registry": "registry.internal", "pullPolicy": "Always", "server": {"tag": "7"}},
        "watch": {"namespaces": ["a", "b"]},
        "rbac": {"nodes": False},
        "networkPolicy": {"clientNamespaces": ["apps"], "metricsNamespaces": ["monitoring"]},
    }
    settings = _settings(values, monkeypatch)
    assert settings.by == Installation(
        server_image="registry.internal/helios-server:7",
        operator_namespace="$(POD_NAMESPACE)",
        operator_name="helios",
        image_pull_policy="Always",
        network_policies=True,
        client_namespaces=("apps",),
        metrics_namespaces=("monitoring",),
    )
    assert settings.options.namespaces == ("a", "b")
    assert not settings.options.nodes
    (container,) = _operator(chart.render(values))["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [settings.http_port]


def test_the_defaults_watch_everything_and_guard_serving_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings({}, monkeypatch)
    assert settings.options.namespaces == ()
    assert settings.options.nodes
    assert settings.by.network_policies
    assert not _settings({"networkPolicy": {"servers": False}}, monkeypatch).by.network_policies


def test_the_policy_of_serving_pods_admits_the_operator_that_the_chart_installs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests = chart.render({"fullnameOverride": "other"})
    settings = _settings({"fullnameOverride": "other"}, monkeypatch)
    policy = server_policy(objects.deployment(), settings.by)
    peers = [peer for rule in policy["spec"]["ingress"] for peer in rule.get("from", ())]
    admitted = next(peer["podSelector"] for peer in peers if "namespaceSelector" in peer)["matchLabels"]
    pod = chart.only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert admitted.items() <= pod.items()


def test_an_image_is_named_by_digest_or_tag_or_the_charts_version() -> None:
    version = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["appVersion"]
    assert _image({}) == f"helios-operator:{version}"
    assert _image({"registry": "r.internal/", "operator": {"tag": "x"}}) == "r.internal/helios-operator:x"
    digest = "sha256:" + "a" * 64
    assert _image({"operator": {"tag": "x", "digest": digest}}) == f"helios-operator@{digest}"


def test_the_monitor_of_servers_selects_serving_pods() -> None:
    values = MATRIX["some namespaces"]
    spec = chart.only(chart.render(values), "PodMonitor")["spec"]
    assert spec["selector"]["matchLabels"] == {COMPONENT: SERVER}
    assert spec["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    pod = objects.revision(objects.deployment())["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert spec["podMetricsEndpoints"][0]["port"] in ports


def test_the_crds_are_the_sources_and_are_kept() -> None:
    sources = {path.name: yaml.safe_load(path.read_text()) for path in chart.ROOT.glob("crds/*.yaml")}
    rendered = {
        f"{manifest['spec']['names']['plural']}.yaml": manifest
        for manifest in chart.of_kind(chart.render(), "CustomResourceDefinition")
    }
    assert rendered.keys() == sources.keys()
    for name, manifest in rendered.items():
        assert manifest["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert manifest == sources[name]


def test_the_crds_may_go_or_be_someone_elses() -> None:
    for manifest in chart.of_kind(chart.render({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "annotations" not in manifest["metadata"]
    assert not chart.of_kind(chart.render({"crds": {"install": False}}), "CustomResourceDefinition")


def test_the_releases_own_test_reaches_the_operator() -> None:
    manifests = chart.render(MATRIX["a full pod"])
    pod, service = chart.only(manifests, "Pod"), chart.only(manifests, "Service")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    port = service["spec"]["ports"][0]["port"]
    said = pod["spec"]["containers"][0]["args"][0]
    compile(said, "helm test", "exec")
    assert f"http://{service['metadata']['name']}:{port}/healthz" in said
    (rule,) = chart.only(manifests, "NetworkPolicy")["spec"]["ingress"]
    admitted = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
    assert any(selector.items() <= pod["metadata"]["labels"].items() for selector in admitted)


def _settings(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> app.Settings:
    """What the operator makes of the arguments that the chart gives it."""
    told: list[app.Settings] = []

    async def run(settings: app.Settings) -> None:
        told.append(settings)

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    (container,) = _operator(chart.render(values))["containers"]
    assert container["command"] == ["helios", "operator"]
    assert operator.run(container["args"]) == 0
    (settings,) = told
    return settings


def _operator(manifests: list[chart.Manifest]) -> chart.Manifest:
    return dict(chart.only(manifests, "Deployment")["spec"]["template"]["spec"])


def _image(images: dict[str, Any]) -> str:
    manifests = chart.render({"images": images})
    (container,) = chart.only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return str(container["image"])
