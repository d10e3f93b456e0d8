"""The file of Kubernetes' types and merge keys: up to date, and a field's name says how a list is merged."""

from __future__ import annotations

import json

from helios_operator.api.pod_template import MergeKeys, is_device, merge_keys

from tests.api import pod_template_schema


def test_the_file_is_what_the_script_writes() -> None:
    assert pod_template_schema.FILE.read_text() == pod_template_schema.text()


def test_within_a_pod_a_fields_name_says_how_its_list_is_merged() -> None:
    definitions = json.loads(pod_template_schema.FILE.read_text())["definitions"]
    lists = [
        (name, field.get("x-kubernetes-patch-merge-key"))
        for each in definitions.values()
        for name, field in each.get("properties", {}).items()
        if field.get("type") == "array"
    ]
    assert {(name, key) for name, key in lists if name in merge_keys()} == {
        (name, keys.key) for name, keys in merge_keys().items()
    }


def test_the_merge_keys_are_those_of_kubernetes() -> None:
    known = merge_keys()
    assert known["ports"] == MergeKeys("containerPort", ("containerPort", "protocol"))
    assert known["topologySpreadConstraints"] == MergeKeys(
        "topologyKey", ("topologyKey", "whenUnsatisfiable")
    )
    assert {"containers", "env", "initContainers", "volumeMounts", "volumes"} <= known.keys()
    assert not {"tolerations", "args", "command", "envFrom", "readinessGates"} & known.keys()


def test_devices_are_extended_resources() -> None:
    assert is_device("nvidia.com/gpu")
    assert not any(map(is_device, ("cpu", "memory", "hugepages-2Mi", "kubernetes.io/x", "a.kubernetes.io/y")))
