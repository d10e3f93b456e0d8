"""What docs/gitops.md and docs/platform.md give to be copied does what they say of it."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helios_operator.api.cel import holds
from helios_operator.api.reasons import Reason
from helios_operator.api.words import Where
from lupa.lua51 import LuaRuntime

from tests.documentation.blocks import Block, of
from tests.manifests import NEWEST

(HEALTH,) = of("tests/test_platform_pages.py::test_argo_tells_what_waits_from_what_needs_a_person")
(TENANTS,) = of("tests/test_platform_pages.py::test_the_tenants_policy_takes_the_rest")
READY = [reason.value for reason in Reason if Where.READY in reason.where and reason is not Reason.SERVING]
FAILS = {"InvalidSpec", "NoFeasibleCandidate", "NameTaken", "WriteRefused"}
WAITS = {"Starting", "NotProfiled", "NoPrompts", "SpecChanged"}


def deployment(ready: str, available: str = "MinimumReplicasServing", progressing: str = "NoRollout") -> Any:
    """As the operator writes its status."""
    serves = available == "MinimumReplicasServing"
    said = {
        "Available": ("True" if serves else "False", available),
        "Progressing": ("False", progressing),
        "Ready": ("True" if ready == "Serving" else "False", ready),
    }
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": f"{reason}, in words"}
        for kind, (status, reason) in said.items()
    ]
    return {"metadata": {"generation": 4}, "status": {"observedGeneration": 4, "conditions": conditions}}


def health(obj: Any) -> str:
    """By the page's own script, in the language that Argo CD reads."""
    lua = LuaRuntime()
    told = lua.eval(f"function(obj) {HEALTH.text} end")(lua.table_from(obj, recursive=True))
    assert told["message"]
    return str(told["status"])


@pytest.mark.parametrize("reason", READY)
def test_argo_tells_what_waits_from_what_needs_a_person(reason: str) -> None:
    expected = "Healthy" if reason in WAITS else "Degraded"
    assert health(deployment(reason)) == expected
    if reason in WAITS:
        assert health(deployment(reason, available="Starting")) == "Progressing"


def test_argo_and_what_is_well_held_or_new() -> None:
    assert health(deployment("Serving")) == "Healthy"
    assert health(deployment("ScaledToZero", available="ScaledToZero")) == "Suspended"
    assert health(deployment("Serving", progressing="Paused")) == "Suspended"
    assert health(deployment("NoReplicaServing", available="NoReplicaServing")) == "Degraded"
    unseen = deployment("Serving")
    unseen["metadata"]["generation"] = 5
    assert health(unseen) == "Progressing"
    assert health({"metadata": {"generation": 1}}) == "Progressing"


TEMPLATES: dict[str, Any] = {
    "service account": {"serviceAccountName": "admin"},
    "host's network": {"hostNetwork": True},
    "host's folder": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
    "Secret": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
    "image": {"containers": [{"name": "helios-server", "image": "theirs"}]},
    "variable of a Secret": {"containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {}}]}]},
}
TAKEN: dict[str, Any] = {
    "resources": {"containers": [{"name": "helios-server", "resources": {"limits": {"nvidia.com/gpu": 1}}}]},
    "places": {
        "nodeSelector": {"a": "b"},
        "containers": [{"name": "c", "env": [{"name": "X", "value": "1"}]}],
    },
}


def denied(spec: dict[str, Any]) -> list[str]:
    """The messages of the page's policy for a HeliosDeployment."""
    policy, binding = yaml.safe_load_all(TENANTS.text)
    for manifest in (policy, binding):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    (variable,) = policy["spec"]["variables"]
    said = []
    for each in policy["spec"]["validations"]:
        rule = each["expression"].replace(f"variables.{variable['name']}", f"({variable['expression']})")
        outcome = holds(re.sub(r"\bobject\.", "self.", rule), {"spec": spec})
        assert not outcome.error, outcome.error
        if not outcome.holds:
            said.append(each["message"])
    return said


SPEC = {"candidates": [{"name": "a", "uri": "pvc://models/a"}, {"name": "b", "uri": "hf://trusted-org/b"}]}


@pytest.mark.parametrize("pod", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_the_tenants_policy_denies_what_reaches_outside(pod: dict[str, Any]) -> None:
    template = {"spec": pod}
    assert len(denied(SPEC | {"template": template})) == 1
    assert len(denied(SPEC | {"profiling": {"template": template}})) == 1


def test_the_tenants_policy_takes_the_rest() -> None:
    assert denied(SPEC) == []
    assert denied({"candidateSelector": {}, "replicas": 4, "profiling": {}, "template": {}}) == []
    assert [denied(SPEC | {"template": {"spec": pod}}) for pod in TAKEN.values()] == [[], []]
    assert denied(SPEC | {"replicas": 5}) == ["at most 4 replicas"]
    (said,) = denied({"candidates": [{"name": "x", "uri": "hf://somebody/x"}]})
    assert "trusted-org" in said


@pytest.mark.parametrize("reason", READY)
def test_flux_waits_until_it_serves_and_gives_up_where_a_person_is_needed(
    documented: list[Block], reason: str
) -> None:
    (block,) = documented
    (check,) = yaml.safe_load(block.text)["healthCheckExprs"]

    def is_so(rule: str, obj: Any) -> bool:
        outcome = holds(rule.replace("status.conditions", "self.conditions"), obj["status"])
        assert not outcome.error
        return outcome.holds

    assert is_so(check["current"], deployment(reason))
    assert not is_so(check["current"], deployment(reason, available="Starting"))
    assert is_so(check["current"], deployment("ScaledToZero", available="ScaledToZero"))
    assert is_so(check["failed"], deployment(reason)) == (reason in FAILS)
