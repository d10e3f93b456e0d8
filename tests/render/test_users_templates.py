"""What admission lets pass of a user's template is rendered and read without an error, whatever it is; all
else is named with its path."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from helios_operator.api import parse, validation
from helios_operator.api.complaints import path_of
from helios_operator.api.pod_template import merge_keys
from helios_operator.api.problems import Invalid
from helios_operator.cluster import nodes
from helios_operator.cluster.kinds import NODE
from helios_operator.cluster.mirror import Mirror
from helios_operator.render import containers
from helios_operator.render.accelerator import Accelerator, accelerator, device
from hypothesis import example, given
from hypothesis import strategies as st

from tests.api.objects import minimal, put
from tests.manifests import assert_valid
from tests.render import objects

WHERE = ("spec.template", "spec.profiling.template")
_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


def _whole(container: str) -> dict[str, Any]:
    """A template with all that HELIOS reads or merges."""
    return {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "mine"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "securityContext": {"fsGroup": 1, "supplementalGroups": [2]},
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
            "imagePullSecrets": [{"name": "pull"}],
            "hostAliases": [{"ip": "::1", "hostnames": ["a"]}],
            "initContainers": [{"name": "first", "image": "i"}],
            "containers": [
                {
                    "name": container,
                    "image": "i",
                    "args": ["--energy-watts", "72"],
                    "env": [{"name": "A", "value": "b"}, {"name": "HF_TOKEN", "valueFrom": _SECRET}],
                    "ports": [{"containerPort": 53, "protocol": "UDP"}],
                    "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "20Gi"}, "requests": {"cpu": 2}},
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": "metrics"}},
                    "securityContext": {"capabilities": {"drop": ["ALL"]}},
                },
                {"name": "sidecar", "image": "j"},
            ],
        },
    }


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, below in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _paths(below, (*path, key))


def _with(template: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(template)
    changed[path[0]] = _with(template[path[0]], path[1:], value)
    return changed


_PATHS = [path for path in _paths(_whole(containers.SERVER)) if path]
_KEYS = st.sampled_from(["name", "limits", "$patch", "valueFrom", "containerPort", "x", ""])
_VALUES = st.sampled_from([None, {}, []]) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**70)
    | st.floats()
    | st.sampled_from(["", "4,5Gi", "1000m", "delete", "replace", "A=b", "-1", "inf", "helios-server", "１"])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=5,
)


def _refused(path: str, template: Any) -> str:
    with pytest.raises(Invalid) as caught:
        validation.admit(put(minimal(), path, template))
    assert caught.value.admitted is not None, "what serves could not be looked after"
    return str(caught.value)


@given(st.sampled_from(WHERE), st.sampled_from(_PATHS), _VALUES, st.sampled_from(_PATHS), _VALUES)
@example(WHERE[0], ("spec", "containers", 0, "resources"), None, ("metadata",), None)
@example(WHERE[0], ("spec", "containers", 0, "resources", "limits"), None, ("spec", "tolerations", 0), None)
@example(WHERE[1], ("spec", "containers", 0, "resources"), None, ("metadata", "labels"), None)
@example(WHERE[0], ("spec",), None, ("metadata",), None)
@example(WHERE[0], ("spec", "containers"), None, ("spec", "volumes"), None)
@example(WHERE[0], ("spec", "containers", 1), None, ("spec", "volumes", 0), None)
def test_a_template_is_rendered_or_refused_with_its_path(
    where: str, first: tuple[Any, ...], value: Any, second: tuple[Any, ...], other: Any
) -> None:
    container = containers.SERVER if where == WHERE[0] else containers.PROFILE
    template = _with(_whole(container), first, value)
    if second in set(_paths(template)):
        template = _with(template, second, other)
    obj = put(put(minimal(), where, template), "metadata.namespace", "team-a")
    try:
        hd = parse.deployment(validation.admit(obj))
    except Invalid:
        _is_refused(obj, where)
        return
    _is_read(hd)
    for manifest in objects.everything(hd):
        assert list(_leftovers(manifest, manifest["kind"])) == []


def _is_refused(obj: Any, where: str) -> None:
    with pytest.raises(Invalid) as caught:
        validation.admit(obj)
    assert all(problem.field.startswith(f"{where}.") for problem in caught.value.problems)
    assert caught.value.admitted is not None


def _is_read(hd: Any) -> None:
    mirror = Mirror()
    mirror.put(NODE, {"metadata": {"name": "n", "resourceVersion": "1", "uid": "n"}, "status": {}})
    nodes.hardware(hd, mirror)
    nodes.memory_limit_mib(hd)
    nodes.room(hd, mirror, nodes.Load(mirror), 800)


def _leftovers(value: Any, path: str) -> Iterator[str]:
    if value is None or path.endswith(".$patch"):
        yield path
    for key, below in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _leftovers(below, f"{path}.{key}")


def _is_found_by(path: tuple[Any, ...]) -> bool:
    """A field without which an item of a merged list is none."""
    return len(path) > 2 and path[-3] in merge_keys() and path[-1] == merge_keys()[path[-3]].key


@pytest.mark.parametrize("path", [path for path in _PATHS if not _is_found_by(path)], ids=path_of)
def test_null_is_absent_wherever_it_stands(path: tuple[Any, ...]) -> None:
    template = _with(_whole(containers.SERVER), path, None)
    hd = parse.deployment(validation.admit(put(minimal(), "spec.template", template)))
    _is_read(hd)
    for manifest in objects.everything(hd):
        assert list(_leftovers(manifest, manifest["kind"])) == []


@pytest.mark.parametrize("path", [path for path in _PATHS if _is_found_by(path)], ids=path_of)
def test_null_where_an_item_is_found_by_it_is_missing(path: tuple[Any, ...]) -> None:
    said = _refused("spec.template", _with(_whole(containers.SERVER), path, None))
    assert f"spec.template.{path_of(path)}: is missing; add it" in said


def _server(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "helios-server", **fields}]}}


def _sidecar(port: int, protocol: Any = None, field: str = "containers", **more: Any) -> dict[str, Any]:
    listed = [{"containerPort": 9000, "name": "http"}, {"containerPort": port, "protocol": protocol}]
    return {"spec": {field: [{"name": "proxy", "ports": listed, **more}]}}


@pytest.mark.parametrize(
    "template",
    [
        _sidecar(8000, protocol="UDP"),
        _sidecar(8000, field="initContainers"),
        _sidecar(8001),
        _server(ports=[{"containerPort": 8000, "name": "http"}, {"containerPort": 8033}]),
        _server(ports=[None, {"containerPort": 9000, "name": "mine"}]),
        {"spec": {"containers": [{"name": "proxy", "ports": None}], "initContainers": None}},
    ],
)
def test_ports_that_are_nobody_elses_are_taken(template: Any) -> None:
    validation.admit(put(minimal(), "spec.template", template))


def test_a_port_that_is_not_served_is_free_to_use() -> None:
    obj = put(put(minimal(), "spec.service", {"httpPort": 0}), "spec.template", _sidecar(8000))
    validation.admit(obj)
    validation.admit(put(minimal(), "spec.profiling.template", _sidecar(8000)))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            _server(resources={"limits": {"memory": "4,5Gi"}}),
            "spec.template.spec.containers[0].resources.limits.memory: '4,5Gi' is no quantity; ",
        ),
        (
            _server(resources={"limits": {"nvidia.com/gpu": "1000m"}}),
            "spec.containers[0].resources.limits.nvidia.com/gpu: '1000m' is no number of devices",
        ),
        (
            _server(resources={"limits": {"amd.com/gpu": 1.5}}),
            "limits.amd.com/gpu: 1.5 is no number of devices",
        ),
        (_server(resources={"requests": {"cpu": "-1"}}), "requests.cpu: '-1' is below 0; write 0 or more"),
        (_server(resources={"limits": {"cpu": True}}), "limits.cpu: True is no quantity"),
        (_server(resources={"limits": ["cpu"]}), "resources.limits: ['cpu'] is not a mapping"),
        (_server(resources="2"), "resources: '2' is not a mapping; write a mapping"),
        (_server(env=["A=b"]), "spec.template.spec.containers[0].env[0]: 'A=b' is not a mapping"),
        (_server(env={"A": "b"}), "containers[0].env: {'A': 'b'} is not a list; write a list"),
        (_server(env=[{"name": "A", "value": 1}]), "env[0].value: 1 is not a string; write it in quotes"),
        (_server(env=[{"value": "b"}]), "env[0].name: is missing; add it"),
        (_server(ports=[{"containerPort": "53"}]), "ports[0].containerPort: '53' is not an integer"),
        (_server(args="--x"), "containers[0].args: '--x' is not a list; write a list"),
        (_server(volumeMounts=[{"name": "v"}]), "volumeMounts[0].mountPath: is missing"),
        (
            {"spec": {"containers": {"helios-server": {}}}},
            "spec.template.spec.containers: {'helios-server': {}} is not",
        ),
        ({"spec": {"containers": ["helios-server"]}}, "containers[0]: 'helios-server' is not a mapping"),
        ({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}, "containers[1].name: 'a' stands twice"),
        ({"spec": [{"containers": []}]}, "spec.template.spec: [{'containers': []}] is not a mapping"),
        ({"metadata": {"labels": {"a": 1}}}, "spec.template.metadata.labels.a: 1 is not a string"),
        ({"metadata": "x"}, "spec.template.metadata: 'x' is not a mapping"),
        ({"spec": {"nodeSelector": ["a"]}}, "spec.nodeSelector: ['a'] is not a mapping"),
        ({"spec": {"tolerations": [{"effect": 1}]}}, "tolerations[0].effect: 1 is not a string"),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "big"}}]}},
            "sizeLimit: 'big' is no quantity",
        ),
        ({"spec": {"nodeSelector": {1: "a"}}}, "nodeSelector.1: the key 1 is not a string"),
        (
            {"spec": {"anything": {"x": {1, 2}}}},
            "spec.template.spec.anything.x: {1, 2} is nothing that JSON can say",
        ),
        (
            _server(**{"$setElementOrder/env": []}),
            "$setElementOrder/env: is a directive that HELIOS does not know",
        ),
        (
            _server(resources={"$patch": "merge"}),
            "resources.$patch: 'merge' is no directive; write delete or",
        ),
        (
            _sidecar(8000),
            "spec.template.spec.containers[0].ports[1].containerPort: 8000 is where HELIOS serves in this "
            "pod; use another port, or set spec.service.httpPort to 0",
        ),
        (_sidecar(8033), "containerPort: 8033 is where HELIOS serves in this pod; use another port"),
        (_sidecar(8034), "8034 is where HELIOS serves"),
        (_sidecar(8035, protocol="TCP"), "8035 is where HELIOS serves"),
        (_sidecar(8000, field="initContainers", restartPolicy="Always"), "initContainers[0].ports[1]"),
        (_server(ports=[{"containerPort": 8000, "name": "web"}]), "'web' renames the port http of HELIOS"),
        (_server(ports=[{"containerPort": 9000, "name": "http"}]), "ports[0].name: 'http' is the name of"),
        (
            _server(ports=[{"containerPort": 9000, "name": "grpc"}]),
            "'grpc' is the name of HELIOS' own port 8033",
        ),
        (_server(**{"$patch": "delete"}), "spec.template.spec.containers: would remove helios-server"),
        ({"spec": {"containers": [{"$patch": "replace"}, {"name": "x"}]}}, "would remove helios-server"),
        ({"spec": {"$patch": "delete"}}, "would remove helios-server"),
        ({"spec": {"$patch": "replace", "nodeSelector": {}}}, "would remove helios-server"),
        (
            {"metadata": {"labels": {"$patch": "replace"}}},
            "spec.template.metadata.labels.$patch: cannot be used here",
        ),
    ],
)
def test_what_cannot_be_used_is_named(template: Any, said: str) -> None:
    assert said in _refused("spec.template", template)


def test_a_profiling_template_is_judged_too() -> None:
    template = {"spec": {"containers": [{"name": "helios-profile", "$patch": "delete"}]}}
    assert "spec.profiling.template.spec.containers: would remove helios-profile" in _refused(
        WHERE[1], template
    )
    assert "spec.profiling.template.spec: 'x' is not a mapping" in _refused(WHERE[1], {"spec": "x"})


def test_hostile_nesting_is_refused_and_exhausts_nothing() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, {"x": circle}):
        with pytest.raises(Invalid, match=r"spec\.template\..*is nested more than 64 levels deep"):
            validation.admit(put(minimal(), "spec.template", value))


def test_an_older_template_with_every_field_renders_to_valid_objects() -> None:
    template = _whole(containers.SERVER)
    template["spec"]["containers"][0]["resources"]["requests"]["memory"] = 1.5e9
    admitted = validation.admit(put(minimal(), "spec.template", template))
    for manifest in objects.everything(parse.deployment(admitted)):
        assert_valid(manifest)


@pytest.mark.parametrize(
    ("limits", "found", "computed_on"),
    [
        ({"nvidia.com/gpu": "2"}, Accelerator("nvidia.com/gpu", 2), "cuda"),
        ({"nvidia.com/gpu": 0}, None, "cpu"),
        ({"nvidia.com/gpu": None}, None, "cpu"),
        ({"amd.com/gpu": 0, "nvidia.com/gpu": 1}, Accelerator("nvidia.com/gpu", 1), "cuda"),
        ({"$patch": "replace", "nvidia.com/gpu": 1}, Accelerator("nvidia.com/gpu", 1), "cuda"),
        ({"$patch": "delete", "nvidia.com/gpu": 1}, None, "cpu"),
    ],
)
def test_devices_are_read_as_they_are_rendered(
    limits: Any, found: Accelerator | None, computed_on: str
) -> None:
    template = _server(resources={"limits": limits})
    validation.admit(put(minimal(), "spec.template", template))
    assert accelerator(template) == found
    assert device(template) == computed_on
