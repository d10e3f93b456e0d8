"""The strategic merge: as `kubectl patch` merges a pod template, without what that loses."""

from __future__ import annotations

import copy
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helios_operator.render.merge import merged, pod_template, said
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sizes import examples
from tests.tools import kubectl

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_TEXT = st.sampled_from(["", "x", "$(a)"])


def _some(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional=fields)


def _named(**fields: Any) -> Any:
    return st.lists(st.fixed_dictionaries({"name": _NAMES}, optional=fields), unique_by=_name, max_size=4)


def _name(item: dict[str, Any]) -> str:
    return str(item["name"])


_PORTS = st.lists(
    st.fixed_dictionaries({"containerPort": st.sampled_from([53, 80, 443])}, optional={"name": _NAMES}),
    unique_by=lambda port: int(port["containerPort"]),
    max_size=3,
)
_CONTAINERS = _named(
    image=_TEXT,
    args=st.lists(_TEXT, max_size=2),
    env=_named(value=st.sampled_from(["", "x"])),
    ports=_PORTS,
    resources=_some(limits=st.dictionaries(_NAMES, st.just("1"), max_size=2)),
    securityContext=_some(runAsUser=st.integers(1, 3), runAsNonRoot=st.booleans()),
)
_TEMPLATES = st.fixed_dictionaries(
    {
        "spec": _some(
            containers=_CONTAINERS,
            initContainers=_CONTAINERS,
            nodeSelector=st.dictionaries(_NAMES, _TEXT, max_size=2),
            tolerations=st.lists(_some(key=_NAMES, operator=st.just("Exists")), max_size=2),
            volumes=_named(emptyDir=_some(medium=_TEXT)),
            imagePullSecrets=_named(),
        )
    }
)
_DELETED = st.fixed_dictionaries({"name": _NAMES, "$patch": st.just("delete")})


def _spread(when: str) -> dict[str, Any]:
    return {"topologyKey": "z", "whenUnsatisfiable": when, "maxSkew": 1}


def _container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "s", **fields}]}}


def test_named_items_are_merged_and_the_rest_replaced() -> None:
    base = {"containers": [{"name": "s", "args": ["a"], "env": [{"name": "X", "value": "1"}], "ports": []}]}
    patch = {
        "containers": [{"name": "t"}, {"name": "s", "args": ["b"], "env": [{"name": "Y", "value": "2"}]}]
    }
    assert merged(base, patch) == {
        "containers": [
            {"name": "t"},
            {
                "name": "s",
                "args": ["b"],
                "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
                "ports": [],
            },
        ]
    }


def test_a_variable_and_a_volume_have_one_source() -> None:
    base = {
        "env": [{"name": "X", "valueFrom": {"fieldRef": {}}}, {"name": "Y", "valueFrom": {"fieldRef": {}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    patch = {
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
        "volumes": [{"name": "v", "configMap": {"name": "c"}}],
    }
    assert merged(base, patch) == patch


def test_an_item_that_names_no_other_source_keeps_its_own() -> None:
    base = {
        "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "a", "readOnly": True}}],
    }
    patch = {
        "env": [{"name": "X"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "b"}}],
    }
    assert merged(base, patch) == {
        "env": base["env"],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "b", "readOnly": True}}],
    }


def test_null_removes_at_any_depth() -> None:
    base = {
        "spec": {
            "securityContext": {"runAsNonRoot": True},
            "containers": [{"name": "s", "livenessProbe": {}}],
        }
    }
    patch = {"spec": {"securityContext": None, "containers": [{"name": "s", "livenessProbe": None}]}}
    assert merged(base, patch) == {"spec": {"containers": [{"name": "s"}]}}


def test_null_never_stays() -> None:
    patch = {"tolerations": [{"key": None, "operator": "Exists"}, None], "args": ["a", None], "env": [None]}
    assert merged({}, {**patch, "affinity": {"nodeAffinity": None}}) == {
        "tolerations": [{"operator": "Exists"}],
        "args": ["a"],
        "env": [],
        "affinity": {},
    }


@pytest.mark.parametrize(
    ("field", "items"),
    [
        ("ports", [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]),
        ("ports", [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]),
        ("topologySpreadConstraints", [_spread("DoNotSchedule"), _spread("ScheduleAnyway")]),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_items_that_share_a_merge_key_are_all_kept(
    field: str, items: list[dict[str, Any]], swap: bool
) -> None:
    other = {"containerPort": 8033, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"}
    for base in ([], [other], [other, items[1]], [*items, other]):
        wanted = items[::-1] if swap else items
        got = merged({field: base}, {field: wanted})[field]
        assert [each for each in got if each != other] == wanted
        assert got.count(other) == base.count(other)


def test_one_of_two_ports_is_changed_or_removed_by_its_protocol() -> None:
    tcp, udp = {"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}
    assert merged({"ports": [tcp, udp]}, {"ports": [{**udp, "name": "dns"}]})["ports"] == [
        tcp,
        {**udp, "name": "dns"},
    ]
    assert merged({"ports": [tcp, udp]}, {"ports": [{**udp, "$patch": "delete"}]})["ports"] == [tcp]


@pytest.mark.parametrize(
    ("variables", "order"),
    [
        ([{"name": "X", "value": "1"}, {"name": "HOME", "value": "$(X)/h"}], ["X", "HOME"]),
        ([{"name": "HOME", "value": "/h"}, {"name": "X", "value": "$(HOME)/x"}], ["HOME", "X"]),
        ([{"name": "X", "value": "$(HOME)/$(POD)"}], ["POD", "HOME", "X"]),
        ([{"name": "X", "value": "1"}, {"name": "Y", "value": "$(X) $(POD)"}], ["POD", "X", "Y"]),
    ],
)
def test_a_variable_comes_after_those_that_it_refers_to(variables: Any, order: list[str]) -> None:
    base = {"env": [{"name": "POD", "valueFrom": {}}, {"name": "HOME", "value": "/tmp"}]}
    names = [each["name"] for each in merged(base, {"env": variables})["env"]]
    assert [name for name in names if name in order] == order
    assert sorted(names) == sorted({"POD", "HOME", *order})


def test_patch_directives_delete_and_replace_and_never_stay() -> None:
    base = {
        "containers": [{"name": "s", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "nodeSelector": {"a": "b"},
        "securityContext": {"runAsUser": 1},
    }
    patch = {
        "containers": [
            {"name": "s", "env": [{"$patch": "replace"}, {"name": "Z", "value": "3"}]},
            {"name": "absent", "$patch": "delete"},
            {"name": "new", "env": [{"name": "Q", "$patch": "delete"}], "resources": {"$patch": "delete"}},
        ],
        "volumes": [{"name": "v", "$patch": "delete"}],
        "nodeSelector": {"$patch": "replace", "c": "d"},
        "securityContext": {"$patch": "delete"},
        "affinity": {"$patch": "replace", "nodeAffinity": {}},
        "tolerations": [{"$patch": "replace"}, {"key": "k"}],
    }
    assert merged(base, patch) == {
        "containers": [{"name": "s", "env": [{"name": "Z", "value": "3"}]}, {"name": "new", "env": []}],
        "volumes": [],
        "nodeSelector": {"c": "d"},
        "securityContext": {},
        "affinity": {"nodeAffinity": {}},
        "tolerations": [{"key": "k"}],
    }


def test_only_what_is_a_pods_is_taken_from_a_template() -> None:
    template = {
        "metadata": {"name": "x", "finalizers": ["f"], "labels": {"a": "1", "helios.dev/revision": "9"}}
    }
    assert pod_template(template) == {"metadata": {"labels": {"a": "1"}}, "spec": {}}


def test_null_of_what_a_pod_cannot_do_without_is_absent() -> None:
    assert pod_template({"metadata": None, "spec": None}) == {"metadata": {}, "spec": {}}
    template = {"spec": {"containers": None, "volumes": None, "securityContext": None}}
    assert pod_template(template)["spec"] == {"securityContext": None}
    nothing = dict.fromkeys(("command", "image", "ports", "volumeMounts"))
    assert pod_template(_container(**nothing))["spec"] == {"containers": [{"name": "s"}]}


def test_what_a_template_says_has_neither_nulls_nor_directives() -> None:
    template = {"spec": {"nodeSelector": {"$patch": "replace", "a": "b"}, "tolerations": None}}
    assert said(template) == {"metadata": {}, "spec": {"nodeSelector": {"a": "b"}}}


@given(_TEMPLATES, _TEMPLATES)
def test_merging_changes_neither_argument_and_twice_is_once(
    base: dict[str, Any], patch: dict[str, Any]
) -> None:
    before = copy.deepcopy((base, patch))
    once = merged(base, patch)
    assert merged(once, patch) == once
    assert (base, patch) == before


@given(_TEMPLATES)
def test_an_empty_patch_changes_nothing(base: dict[str, Any]) -> None:
    assert merged(base, {}) == base
    assert merged({}, base) == base


@settings(max_examples=examples(40))
@given(_TEMPLATES, _TEMPLATES, st.lists(_DELETED, max_size=2))
def test_the_result_is_kubectls(base: dict[str, Any], patch: dict[str, Any], gone: Any) -> None:
    """Where the two differ on purpose nothing is generated: references to variables of the base, another
    source of a variable or volume, two ports of one number."""
    spec = patch["spec"]
    if "containers" in spec and base["spec"].get("containers"):
        named = {each["name"] for each in gone}
        kept = [each for each in spec["containers"] if each["name"] not in named]
        patch = {"spec": {**spec, "containers": [*kept, *gone]}}
    assert merged(base, patch) == _by_kubectl(base, patch)


@pytest.mark.parametrize(
    "patch",
    [
        _container(env=[{"name": "X", "value": "1"}, {"name": "HOME", "value": "$(X)"}, {"name": "Y"}]),
        _container(env=[{"$patch": "replace"}, {"name": "Y", "value": "1"}]),
        _container(env=[{"name": "HOME", "$patch": "delete"}, {"name": "HOME", "value": "again"}]),
        _container(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        _container(**{"$patch": "replace", "image": "k"}),
        _container(resources={"limits": {"$patch": "replace", "memory": "1Gi"}}),
        _container(resources={"$patch": "delete"}, livenessProbe={"$patch": "delete"}),
        _container(resources=None, args=["x"], ports=[{"containerPort": 8033, "name": "other"}]),
        {"spec": {"containers": [{"$patch": "replace"}, {"name": "t", "image": "j"}]}},
        {"spec": {"initContainers": [{"$patch": "replace"}, {"name": "t", "image": "j"}]}},
        {"spec": {"containers": [{"name": "a"}, {"name": "s", "image": "k"}, {"name": "z"}]}},
        {"spec": {"volumes": [{"name": "v", "$patch": "delete"}, {"name": "w", "emptyDir": {}}]}},
        {"spec": {"volumes": [], "tolerations": [], "containers": []}},
        {"spec": {"topologySpreadConstraints": [{"topologyKey": "z", "maxSkew": 1}]}},
        {"spec": {"hostAliases": [{"ip": "::1", "hostnames": ["a"]}, {"ip": "127.0.0.1"}]}},
        {"metadata": {"labels": {"$patch": "replace", "q": "r"}, "annotations": {"a": None}}},
    ],
    ids=json.dumps,
)
def test_directives_and_orders_are_kubectls(patch: dict[str, Any]) -> None:
    base = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}},
        "spec": {
            "containers": [
                {
                    "name": "s",
                    "image": "i",
                    "args": ["a"],
                    "env": [{"name": "POD", "value": "p"}, {"name": "HOME", "value": "/tmp"}],
                    "ports": [{"name": "grpc", "containerPort": 8033, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}},
                },
                {"name": "last"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "z", "emptyDir": {}}],
        },
    }
    assert merged(base, patch) == _by_kubectl(base, patch)


def _by_kubectl(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(_patched(json.dumps(base), json.dumps(patch))))


@cache
def _patched(base: str, patch: str) -> str:
    whole = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    document = json.dumps({**whole, "spec": {"template": json.loads(base)}})
    change = json.dumps({"spec": {"template": json.loads(patch)}})
    command = [str(_kubectl()), "patch", "--local", "-f", "-", "--type=strategic", "-p", change, "-o", "json"]
    done = subprocess.run(command, input=document, capture_output=True, text=True, check=True)
    return json.dumps(json.loads(done.stdout)["spec"].get("template", {}))


@cache
def _kubectl() -> Path:
    try:
        return kubectl()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no kubectl to compare with: {error}")
