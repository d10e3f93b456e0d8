"""The template hash: golden values, because a new value for an old object restarts serving pods."""

from __future__ import annotations

from typing import Any

import pytest
from helios_operator.render.template_hash import template_hash

from tests.render import objects

_CACHE = {"pvcName": "model-cache", "mountPath": "/models", "readOnly": True}
_AUTH = {"name": "hf-token", "key": "HF_TOKEN"}
_TEMPLATE = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "containers": [
            {"name": "helios-server", "image": "mine:1", "resources": {"limits": {"nvidia.com/gpu": 1}}}
        ],
    },
}

GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({}, "e8fc7a1d5fce"),
    ({"template": _TEMPLATE}, "e8653eaad7b9"),
    ({"modelCache": _CACHE}, "e32e32044112"),
    ({"authSecret": _AUTH}, "6287bf032fd1"),
    ({"modelName": "other"}, "9f481599a656"),
    ({"modelCache": _CACHE, "authSecret": _AUTH, "template": _TEMPLATE}, "6e958a129cce"),
]
"""Never edit a value: an operator that computes another one replaces every revision that carries this one."""


@pytest.mark.parametrize(("spec", "expected"), GOLDEN)
def test_a_released_hash_never_changes(spec: dict[str, Any], expected: str) -> None:
    assert template_hash(objects.deployment(**spec)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"limits": {"layerBudget": {"min": 8, "max": 16}, "memoryMiB": 900, "maxBatchSize": 3}},
        {"replicas": 5},
        {"slo": {"minQualityPercent": 90}},
        {"reassessment": {"auditPercent": 50}},
        {"rollout": {"strategy": "Surge", "drain": {"preStopSeconds": 1, "timeoutSeconds": 2}}},
        {"service": {"port": 9000}},
        {"service": {"port": 8000}},
        {"service": {"httpPort": 9000}},
        {"profiling": {"template": {"spec": {"nodeSelector": {"a": "b"}}}, "prompts": {"inline": ["x"]}}},
        {"candidates": [{"name": "z", "uri": "pvc://elsewhere/z"}, {"name": "y", "uri": "hf://o/y"}]},
    ],
)
def test_what_pods_are_told_while_they_run_is_not_hashed(change: dict[str, Any]) -> None:
    assert template_hash(objects.deployment(**change)) == template_hash(objects.deployment())


def test_what_only_new_pods_can_take_up_is_hashed() -> None:
    specs = [spec for spec, _ in GOLDEN]
    image = {"spec": {"containers": [{"name": "helios-server", "image": "a"}]}}
    specs += [
        {"template": image},
        {"modelCache": _CACHE | {"readOnly": False}},
        {"authSecret": _AUTH | {"key": "K"}},
        {"limits": {"maxContextTokens": 4096}},
        {"limits": {"maxContextTokens": 8192}},
        {"service": {"httpPort": 0}},
        {"service": {"tls": {"secretName": "a"}}},
        {"service": {"tls": {"secretName": "a", "clientCASecretName": "b"}}},
        {"service": {"auth": {"secretName": "a"}}},
    ]
    hashes = [template_hash(objects.deployment(**spec)) for spec in specs]
    assert len(set(hashes)) == len(specs)


def test_the_order_of_fields_is_not_hashed() -> None:
    one = {"spec": {"nodeSelector": {"a": "1", "b": "2"}, "priorityClassName": "p"}}
    two = {"spec": {"priorityClassName": "p", "nodeSelector": {"b": "2", "a": "1"}}}
    assert template_hash(objects.deployment(template=one)) == template_hash(objects.deployment(template=two))
