"""Every object that is rendered: valid for old and new clusters, restricted, owned, and named within
bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_operator.api import parse, validation
from helios_operator.render import Manifest, labels, names
from helios_operator.render.pdb import disruption_budget

from tests.manifests import assert_valid, restricted_violations
from tests.render import objects

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/**/*.yaml"))
SPECS: dict[str, dict[str, Any]] = {
    "minimal": {},
    "replicas": {"replicas": 3},
    "gpu": {"template": objects.GPU_TEMPLATE},
    "cache": {
        "modelCache": {"pvcName": "model-cache", "mountPath": "/models", "readOnly": True},
        "authSecret": {"name": "hf-token", "key": "HF_TOKEN"},
    },
    "writable cache": {"modelCache": {"pvcName": "models", "mountPath": "/models", "readOnly": False}},
    "config map prompts": {"profiling": {"prompts": {"configMapRef": {"name": "prompts", "key": "p.txt"}}}},
    "inline prompts": {"profiling": {"prompts": {"inline": ["Call me Ishmael.", "Größe"]}}},
    "secrets": {
        "service": {"tls": {"secretName": "t", "clientCASecretName": "c"}, "auth": {"secretName": "a"}}
    },
    "profiling template": {
        "profiling": {
            "template": {
                "spec": {"containers": [{"name": "helios-profile", "env": [{"name": "A", "value": "b"}]}]}
            }
        }
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_object_is_valid_in_the_oldest_and_the_newest_kubernetes(spec: dict[str, Any]) -> None:
    for manifest in objects.everything(objects.deployment(**spec)):
        assert_valid(manifest)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_renders_to_valid_objects(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document and document["kind"] == "HeliosDeployment":
            admitted = validation.admit(document)
            hd = parse.deployment(admitted | {"metadata": admitted["metadata"] | {"uid": "u"}})
            for manifest in objects.everything(hd):
                assert_valid(manifest)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_no_user_and_no_group_is_chosen_for_a_platform_that_chooses_them(spec: dict[str, Any]) -> None:
    text = json.dumps(objects.everything(objects.deployment(**spec)))
    assert not re.search(r'"(runAsUser|runAsGroup|fsGroup|fsGroupChangePolicy|supplementalGroups)"', text)


def test_addresses_of_both_families_are_offered_and_none_is_written_down() -> None:
    manifests = objects.everything(objects.deployment(replicas=2))
    services = [each["spec"] for each in manifests if each["kind"] == "Service"]
    assert [each["ipFamilyPolicy"] for each in services] == ["PreferDualStack"] * 4
    assert not any({"clusterIPs", "ipFamilies"} & set(each) for each in services)
    policies = [json.dumps(each) for each in manifests if each["kind"] == "NetworkPolicy"]
    assert policies
    assert not any("ipBlock" in each or "cidr" in each for each in policies)
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    assert server["command"][server["command"].index("--host") + 1] == "::"
    probes = [server[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert not any("host" in each for each in probes), "the kubelet calls the pod's own address"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_applying_twice_writes_once(spec: dict[str, Any]) -> None:
    """A server drops empty lists and maps, and takes the next apply of one for a change."""
    for manifest in objects.everything(objects.deployment(**spec)):
        assert list(_empties(manifest, manifest["kind"])) == []


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_pod_is_restricted(spec: dict[str, Any]) -> None:
    for pod in _pods(objects.everything(objects.deployment(**_without_sidecar(spec)))):
        assert restricted_violations(pod) == []
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["chat", "c" * 40, "a-" + "b" * 37 + "9"])
def test_names_and_labels_fit(name: str) -> None:
    hd = objects.deployment(
        name,
        replicas=2,
        candidates=[
            {"name": "a", "uri": f"pvc://{'claim.with.dots-' * 8}x/m"},
            {"name": "b", "uri": f"pvc://{'c' * 63}/m"},
        ],
    )
    manifests = [*objects.everything(hd), objects.revision(hd, number=123456)]
    for manifest in manifests:
        assert len(manifest["metadata"]["name"]) <= names.LONGEST
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
        assert_valid(manifest)
    for pod in _pods(manifests):
        for volume in pod["volumes"]:
            assert len(volume["name"]) <= 63
            assert "." not in volume["name"]


def test_fitted_names_of_different_things_differ() -> None:
    assert names.fitted("x" * 63) == "x" * 63
    assert names.fitted("x" * 64) != names.fitted("x" * 65)
    assert names.volume("claim", "a.b") != names.volume("claim", "a-b")


def test_every_object_is_deleted_with_its_owner_and_blocks_nothing() -> None:
    for manifest in objects.everything(objects.deployment(replicas=2)):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("HeliosDeployment", "chat", "5c8f-01")
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert manifest["metadata"]["namespace"] == "team-a"
        assert manifest["metadata"]["labels"][labels.DEPLOYMENT] == "chat"


def test_only_serving_pods_count_for_the_scale_subresource() -> None:
    for manifest in objects.everything(
        objects.deployment(template={"metadata": {"labels": {labels.DEPLOYMENT: "x"}}})
    ):
        if "template" in manifest.get("spec", {}):
            found = manifest["spec"]["template"]["metadata"]["labels"].get(labels.DEPLOYMENT)
            assert found == ("chat" if manifest["kind"] == "Deployment" else None)


def test_a_single_pod_has_no_disruption_budget() -> None:
    assert disruption_budget(objects.deployment(replicas=1), "policy/v1") is None
    assert disruption_budget(objects.deployment(replicas=0), "policy/v1") is None


def test_an_old_server_gets_the_budget_that_it_knows() -> None:
    budget = disruption_budget(objects.deployment(replicas=2), "policy/v1beta1")
    assert budget is not None
    assert budget["apiVersion"] == "policy/v1beta1"
    assert set(budget["spec"]) == {"maxUnavailable", "selector"}


def _pods(manifests: list[Manifest]) -> list[Manifest]:
    return [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]


def _without_sidecar(spec: dict[str, Any]) -> dict[str, Any]:
    """A user's own container is theirs to restrict."""
    if "template" not in spec:
        return spec
    pod = spec["template"]["spec"]
    ours = [each for each in pod["containers"] if each["name"] == "helios-server"]
    return spec | {"template": spec["template"] | {"spec": pod | {"containers": ours}}}


def _empties(value: Any, path: str) -> Iterator[str]:
    """Where a list or map is empty; `emptyDir: {}` is a kind of volume and stays."""
    if value in ([], {}, None) and not path.endswith(".emptyDir"):
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, member in members:
        yield from _empties(member, f"{path}.{name}")
