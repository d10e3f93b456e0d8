"""The examples that join what others run: their objects hold only what those types have, and call what is
ours by its name. None is applied to a real gateway or KEDA here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helios_operator.api import parse, ports
from helios_operator.api.crds import API_VERSION
from helios_operator.api.validation import admit
from helios_server.telemetry.metrics import Metrics

from tests.manifests import assert_valid
from tests.render import objects

ROOT = Path(__file__).parents[2]
OTHERS = yaml.safe_load(Path(__file__).with_name("others.yaml").read_text())


def example(name: str) -> dict[str, dict[str, Any]]:
    """Its objects by kind, the picker's configuration among them."""
    found = {each["kind"]: each for each in yaml.safe_load_all((ROOT / f"examples/{name}.yaml").read_text())}
    if "ConfigMap" in found:
        assert_valid(found["ConfigMap"])
        found["EndpointPickerConfig"] = yaml.safe_load(found.pop("ConfigMap")["data"]["helios.yaml"])
    return found


GATEWAY, KEDA = example("gateway"), example("keda")


@pytest.mark.parametrize(
    ("kind", "obj"),
    [(kind, obj) for kind, obj in (*GATEWAY.items(), *KEDA.items()) if kind != "HeliosDeployment"],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_each_object_is_of_its_type(kind: str, obj: dict[str, Any]) -> None:
    jsonschema.validate(obj.get("spec", obj), OTHERS[kind])


def test_the_pool_holds_the_pods_that_serve_and_their_http_port() -> None:
    spec = GATEWAY["InferencePool"]["spec"]
    pod = _pod(GATEWAY)
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [each["number"] for each in spec["targetPorts"]] == [ports.HTTP]
    (rule,) = GATEWAY["HTTPRoute"]["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert backend["group"] == GATEWAY["InferencePool"]["apiVersion"].partition("/")[0]
    assert backend["name"] == GATEWAY["InferencePool"]["metadata"]["name"]


def test_the_picker_finds_our_metrics_where_they_are() -> None:
    plugins = {
        each["type"]: each.get("parameters", {}) for each in GATEWAY["EndpointPickerConfig"]["plugins"]
    }
    assert plugins["metrics-data-source"]["port"] == ports.METRICS
    (engine,) = plugins["core-metrics-extractor"]["engineConfigs"]
    assert _pod(GATEWAY)["metadata"]["labels"]["llm-d.ai/engine-type"] == engine["name"]
    exported = Metrics("chat").render().decode()
    for field in ("queuedRequestsSpec", "runningRequestsSpec", "kvUsageSpec"):
        assert f"# TYPE {engine[field]} gauge" in exported


def test_the_picker_uses_only_what_it_has() -> None:
    config = GATEWAY["EndpointPickerConfig"]
    known = {each["type"] for each in config["plugins"]}
    used = {each["pluginRef"] for profile in config["schedulingProfiles"] for each in profile["plugins"]}
    for source in config["dataLayer"]["sources"]:
        used |= {source["pluginRef"], *(each["pluginRef"] for each in source["extractors"])}
    assert used == known


def test_keda_scales_the_heliosdeployment() -> None:
    deployment, spec = KEDA["HeliosDeployment"], KEDA["ScaledObject"]["spec"]
    target = spec["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (API_VERSION, "HeliosDeployment")
    assert target["name"] == deployment["metadata"]["name"]
    assert spec["minReplicaCount"] <= deployment["spec"]["replicas"] <= spec["maxReplicaCount"]
    crd = yaml.safe_load((ROOT / "crds/heliosdeployments.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"


def _pod(joined: dict[str, dict[str, Any]]) -> dict[str, Any]:
    admitted = admit(joined["HeliosDeployment"])
    hd = parse.deployment(admitted | {"metadata": admitted["metadata"] | {"uid": "u"}})
    return dict(objects.revision(hd)["spec"]["template"])
