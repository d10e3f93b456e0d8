"""Values: every one is described, nothing unknown or wrong is taken, and what is refused is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from helios_operator.cluster.metrics import Metrics as OperatorMetrics
from helios_proto import __version__
from helios_server.telemetry.metrics import Metrics as ServerMetrics

from tests.chart import chart

SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())

FULL: dict[str, Any] = {
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Serving"}},
    },
    "networkPolicy": {"metricsNamespaces": ["monitoring"]},
    "serviceAccount": {"name": "account"},
}
"""With all that may be left out."""
SAMPLES: dict[str, Any] = {
    "nameOverride": "other",
    "fullnameOverride": "other",
    "images.registry": "registry.internal",
    "images.pullPolicy": "Always",
    "images.pullSecrets": [{"name": "pull"}],
    "images.operator.repository": "other",
    "images.operator.tag": "other",
    "images.operator.digest": "sha256:" + "1" * 64,
    "images.server.repository": "other",
    "images.server.tag": "other",
    "images.server.digest": "sha256:" + "1" * 64,
    "crds.install": False,
    "crds.keep": False,
    "watch.namespaces": ["team-a"],
    "rbac.create": False,
    "rbac.nodes": False,
    "rbac.aggregate": False,
    "serviceAccount.create": False,
    "serviceAccount.name": "mine",
    "serviceAccount.annotations": {"a": "b"},
    "operator.logLevel": "debug",
    "operator.logFormat": "text",
    "operator.resources": {"limits": {"cpu": 1}},
    "operator.extraArgs": ["--x"],
    "operator.extraEnv": [{"name": "A", "value": "b"}],
    "operator.podLabels": {"a": "b"},
    "operator.podAnnotations": {"a": "b"},
    "operator.nodeSelector": {"a": "b"},
    "operator.tolerations": [{"operator": "Exists"}],
    "operator.affinity": {"nodeAffinity": {}},
    "operator.priorityClassName": "high",
    "networkPolicy.operator": False,
    "networkPolicy.servers": False,
    "networkPolicy.clientNamespaces": ["apps"],
    "networkPolicy.metricsNamespaces": ["other"],
    "metrics.serviceMonitor.enabled": False,
    "metrics.serviceMonitor.interval": "1m",
    "metrics.serviceMonitor.labels": {"a": "b"},
    "metrics.podMonitor.enabled": False,
    "metrics.podMonitor.interval": "1m",
    "metrics.podMonitor.labels": {"a": "b"},
    "metrics.prometheusRule.enabled": False,
    "metrics.prometheusRule.labels": {"a": "b"},
    "metrics.dashboard.enabled": False,
    "metrics.dashboard.namespace": "monitoring",
    "metrics.dashboard.labels": {"a": "b"},
    "metrics.dashboard.annotations": {"a": "b"},
}
"""Something else than the default, for every value."""


def _groups(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all objects with named members."""
    if "properties" in schema:
        yield path
        for name, field in schema["properties"].items():
            yield from _groups(field, (*path, name))


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


@pytest.mark.parametrize("group", list(_groups(SCHEMA)), ids=".".join)
def test_an_unknown_value_is_refused_wherever_it_stands(group: tuple[str, ...]) -> None:
    with pytest.raises(chart.RefusedError, match="additional properties 'misspelt' not allowed"):
        chart.render(_nested((*group, "misspelt"), 1))


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"operator": {"logLevel": "loud"}}, "/operator/logLevel"),
        ({"operator": {"resources": "much"}}, "/operator/resources"),
        ({"images": {"pullPolicy": "Sometimes"}}, "/images/pullPolicy"),
        ({"images": {"operator": {"repository": ""}}}, "/images/operator/repository"),
        ({"images": {"server": {"digest": "sha256:1"}}}, "/images/server/digest"),
        ({"watch": {"namespaces": "team-a"}}, "/watch/namespaces"),
        ({"watch": {"namespaces": ["Team A"]}}, "/watch/namespaces/0"),
        ({"fullnameOverride": "x" * 41}, "/fullnameOverride"),
        ({"crds": {"keep": "yes"}}, "/crds/keep"),
        ({"metrics": {"podMonitor": {"interval": "soon"}}}, "/metrics/podMonitor/interval"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], where: str) -> None:
    with pytest.raises(chart.RefusedError, match=where):
        chart.render(values)


def test_every_value_has_a_default_and_every_default_is_in_the_schema() -> None:
    described = {path for path in _leaves(SCHEMA) if path != ("global",)}
    assert described == {path for path in described if _lookup(path) is not None}
    assert all(set(_lookup(group) or ()) <= set(_field(group)["properties"]) for group in _groups(SCHEMA))


def test_the_samples_are_of_all_values() -> None:
    assert SAMPLES.keys() == {".".join(path) for path in _leaves(SCHEMA)} - {"global"}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_value_changes_what_is_rendered(name: str) -> None:
    """A value that no template reads is a promise that nobody keeps."""
    changed = _over(FULL, _nested(tuple(name.split(".")), SAMPLES[name]))
    assert chart.render(changed) != chart.render(FULL)


def test_generated_files_are_what_make_chart_writes() -> None:
    script = chart.ROOT / "deploy/helm/generate.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    copies = {path.name for path in (chart.CHART / "files/crds").iterdir()}
    assert copies == {path.name for path in chart.ROOT.glob("crds/*.yaml")}


def test_the_page_sets_values_that_exist() -> None:
    page = (chart.ROOT / "docs/install.md").read_text()
    named = re.findall(r"--set '?([\w.]+)=", page) + re.findall(r"`([a-z][\w]*(?:\.\w+)+)=", page)
    assert named
    leaves = {".".join(path) for path in _leaves(SCHEMA)}
    assert set(named) <= leaves


def test_the_chart_and_the_package_have_one_version() -> None:
    metadata = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert metadata["version"] == metadata["appVersion"] == __version__


def test_no_registry_is_assumed() -> None:
    for container in chart.only(chart.render(), "Deployment")["spec"]["template"]["spec"]["containers"]:
        assert "/" not in container["image"]
        servers = [each for each in container["args"] if each.startswith("--server-image=")]
        assert not any("/" in each for each in servers)


def test_the_notes_say_what_comes_next_and_what_stays() -> None:
    text = chart.notes()
    for step in ("helm test helios", "kubectl apply -f", "kubectl get heliosdeployments", "helios generate"):
        assert step in text
    assert "keeps the CRDs" in text
    assert "team-a, team-b" in chart.notes({"watch": {"namespaces": ["team-a", "team-b"]}})
    assert "deletes every HeliosDeployment" in chart.notes({"crds": {"keep": False}})
    assert "apply the CRDs" in chart.notes({"crds": {"install": False}})
    assert "second pod" in chart.notes({"rbac": {"nodes": False}})


def test_the_alerts_ask_for_metrics_that_are_exported() -> None:
    rule = chart.only(chart.render(FULL), "PrometheusRule")
    asked = set(re.findall(r"\bhelios_\w+", json.dumps(rule["spec"])))
    exported = ServerMetrics("chat").render() + OperatorMetrics().page()
    assert asked
    assert all(f"# TYPE {name} ".encode() in exported for name in asked)


def _leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if "description" in schema:
        yield path
        return
    for name, field in schema.get("properties", {}).items():
        yield from _leaves(field, (*path, name))


def _lookup(path: tuple[str, ...]) -> Any:
    value = VALUES
    for name in path:
        value = (value or {}).get(name)
    return value


def _field(path: tuple[str, ...]) -> dict[str, Any]:
    schema = SCHEMA
    for name in path:
        schema = schema["properties"][name]
    return schema


def _over(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = {name: value for name, value in base.items() if isinstance(value, dict) and name in change}
    return base | change | {name: _over(value, change[name]) for name, value in both.items()}
