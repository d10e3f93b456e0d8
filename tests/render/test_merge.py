"""The strategic merge: as `kubectl patch` merges a pod template."""

from __future__ import annotations

import copy
from typing import Any

from helios_operator.render.merge import merged, pod_template
from hypothesis import given
from hypothesis import strategies as st

_NAMES = st.sampled_from(["a", "b", "c"])
_CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": _NAMES},
        optional={
            "image": st.text(max_size=3),
            "args": st.lists(st.text(max_size=2), max_size=2),
            "resources": st.dictionaries(
                st.sampled_from(["limits", "requests"]), st.dictionaries(st.just("cpu"), st.integers(0, 3))
            ),
        },
    ),
    unique_by=lambda container: container["name"],
    max_size=3,
)
_TEMPLATES = st.fixed_dictionaries({"spec": st.fixed_dictionaries({"containers": _CONTAINERS})})


def test_named_items_are_merged_and_the_rest_replaced() -> None:
    base = {"containers": [{"name": "s", "args": ["a"], "env": [{"name": "X", "value": "1"}], "ports": []}]}
    patch = {
        "containers": [{"name": "t"}, {"name": "s", "args": ["b"], "env": [{"name": "Y", "value": "2"}]}]
    }
    assert merged(base, patch) == {
        "containers": [
            {
                "name": "s",
                "args": ["b"],
                "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                "ports": [],
            },
            {"name": "t"},
        ]
    }


def test_an_item_with_one_source_replaces_its_namesake() -> None:
    base = {"env": [{"name": "X", "valueFrom": {"fieldRef": {}}}], "volumes": [{"name": "v", "emptyDir": {}}]}
    patch = {"env": [{"name": "X", "value": "1"}], "volumes": [{"name": "v", "configMap": {"name": "c"}}]}
    assert merged(base, patch) == patch


def test_null_removes_at_any_depth() -> None:
    base = {
        "spec": {
            "securityContext": {"runAsNonRoot": True},
            "containers": [{"name": "s", "livenessProbe": {}}],
        }
    }
    patch = {"spec": {"securityContext": None, "containers": [{"name": "s", "livenessProbe": None}]}}
    assert merged(base, patch) == {"spec": {"containers": [{"name": "s"}]}}


def test_only_what_is_a_pods_is_taken_from_a_template() -> None:
    template = {
        "metadata": {"name": "x", "finalizers": ["f"], "labels": {"a": "1", "helios.dev/revision": "9"}}
    }
    assert pod_template(template) == {"metadata": {"labels": {"a": "1"}}, "spec": {}}


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
