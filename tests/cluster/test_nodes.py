"""The scheduler's arithmetic: which hardware, and does one more pod fit?"""

from __future__ import annotations

from typing import Any

import pytest
from helios_operator.cluster import nodes
from helios_operator.cluster.kinds import NODE, POD
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.quantities import mib, number

from tests.render import objects

GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("2", 2),
        (2, 2),
        (0.5, 0.5),
        ("16Gi", 16 * 2**30),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        (".5", 0.5),
        ("5.", 5),
        ("+1", 1),
        ("100n", 1e-7),
        ("1e999", float(2**63 - 1)),
        ("9999999Ei", float(2**63 - 1)),
        *((none, 0) for none in (None, "", "x", "4,5Gi", "1e3Ki", "1_000", "inf", "nan", "2ki", "1e", "١")),
        *((none, 0) for none in (True, [], {}, float("inf"), float("nan"))),
    ],
)
def test_quantities(text: object, value: float) -> None:
    assert number(text) == value


def test_memory_in_mib() -> None:
    assert mib("1Gi") == 1024


def node(
    name: str, labels: dict[str, str] | None = None, taints: Any = (), **allocatable: str
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1", "uid": name, "labels": labels or {}},
        "spec": {"taints": list(taints)},
        "status": {
            "allocatable": {"cpu": "8", "memory": "16Gi"} | allocatable,
            "nodeInfo": {"architecture": "arm64"},
        },
    }


def pod(
    name: str, on: str, resources: dict[str, str], phase: str = "Running", ours: bool = False
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": name,
            "resourceVersion": "1",
            "labels": {"helios.dev/deployment": "chat"} if ours else {},
        },
        "spec": {"nodeName": on, "containers": [{"resources": {"limits": resources}}]},
        "status": {"phase": phase},
    }


def mirror(*items: dict[str, Any]) -> Mirror:
    made = Mirror()
    for item in items:
        made.put(POD if "containers" in item["spec"] else NODE, item)
    return made


def deployment(resources: dict[str, Any], **spec: Any) -> Any:
    container = {"name": "helios-server", "resources": {"limits": resources}}
    return objects.deployment(template={"spec": {"containers": [container], **spec}})


def room(hd: Any, seen: Mirror, pod_mib: int) -> nodes.Room:
    return nodes.room(hd, seen, nodes.Load(seen), pod_mib)


def test_hardware_is_that_of_the_nodes_that_offer_the_accelerator() -> None:
    labels = {f"{GPU}.product": "NVIDIA-L4", f"{GPU}.memory": "23034"}
    seen = mirror(node("a"), node("b", labels, **{GPU: "2"}))
    found = nodes.hardware(deployment({GPU: 1}), seen)
    assert (found.accelerator, found.accelerators, found.dtype) == ("NVIDIA-L4", 1, "bfloat16")
    assert 23034 - 256 < found.memory_mib <= 23034
    cpu = nodes.hardware(deployment({}), seen)
    assert (cpu.accelerator, cpu.cores, cpu.memory_mib, cpu.cpu) == (None, 8, 16384, "arm64")


def test_a_node_that_multiplies_bfloat16_computes_in_it() -> None:
    mark, model = (f"feature.node.kubernetes.io/{kind}" for kind in ("cpu-cpuid", "cpu-model"))
    tiles, pairs = ("AMXTILE", "AMXBF16"), ("AVX512BF16", "AVX512VNNI")

    def dtype(words: tuple[str, ...], vendor: str) -> str:
        marks = {f"{mark}.{word}": "true" for word in words} | {f"{model}.vendor_id": vendor}
        return nodes.hardware(deployment({}), mirror(node("a", marks))).dtype

    found = {words: dtype(words, "AMD") for words in (tiles, pairs, tiles[:1], pairs[:1], pairs[1:], ())}
    assert found == {
        tiles: "bfloat16", pairs: "bfloat16", tiles[:1]: "float16", pairs[:1]: "float16",
        pairs[1:]: "float16", (): "float16",
    }  # fmt: skip
    assert (dtype(pairs, "Intel"), dtype((*tiles, *pairs), "Intel")) == ("float16", "bfloat16")


def test_a_free_accelerator_is_room_a_taken_one_is_not() -> None:
    a = node("a", **{GPU: "2"})
    one, two = (pod(name, "a", {GPU: "1"}) for name in ("p", "q"))
    hd = deployment({GPU: 1})
    assert room(hd, mirror(a), 100).pods == 2
    assert room(hd, mirror(a, one), 100).pods == 1
    assert room(hd, mirror(a, one, two), 100).pods == 0
    done = pod("p", "a", {GPU: "1"}, phase="Succeeded")
    assert room(hd, mirror(a, done, two), 100).pods == 1


def test_a_pod_of_ours_that_waits_for_a_node_will_take_one() -> None:
    waiting = pod("p", "", {GPU: "1"}, ours=True)
    assert room(deployment({GPU: 1}), mirror(node("a", **{GPU: "2"}), waiting), 100).pods == 1


def test_the_load_follows_the_pods() -> None:
    seen = mirror(node("a", **{GPU: "2"}))
    load, hd = nodes.Load(seen), deployment({GPU: 1})

    def pods_that_fit() -> int:
        return nodes.room(hd, seen, load, 100).pods

    assert pods_that_fit() == 2
    came = pod("p", "", {GPU: "1"}, ours=True)
    seen.put(POD, came)
    assert pods_that_fit() == 1
    placed = pod("p", "a", {GPU: "1"}, ours=True)
    placed["metadata"]["resourceVersion"] = "2"
    seen.put(POD, placed)
    assert pods_that_fit() == 1
    seen.forget(POD, placed)
    assert pods_that_fit() == 2


def test_memory_is_room_on_one_node_not_on_all_together() -> None:
    seen = mirror(node("a"), node("b"), pod("p", "a", {"memory": "15Gi"}), pod("q", "b", {"memory": "15Gi"}))
    found = room(deployment({}), seen, 1500)
    assert (found.pods, found.free_mib) == (0, 1024)
    assert room(deployment({}), seen, 1000).pods == 2


def test_selectors_taints_and_cordons_keep_pods_away() -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    a = node("a", {"zone": "1"}, [taint])
    assert room(deployment({}), mirror(a), 100).pods == 0
    tolerant = deployment({}, tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert room(tolerant, mirror(a), 100).pods > 0
    elsewhere = deployment({}, tolerations=[{"operator": "Exists"}], nodeSelector={"zone": "2"})
    assert room(elsewhere, mirror(a), 100).pods == 0
    cordoned = a | {"spec": {"unschedulable": True}}
    assert room(tolerant, mirror(cordoned), 100).pods == 0


def with_others(limits: dict[str, Any], others: list[dict[str, Any]], **spec: Any) -> Any:
    hd = deployment(limits)
    hd.spec.template["spec"]["containers"] += others
    hd.spec.template["spec"] |= spec
    return hd


def asking(name: str = "other", always: bool = False, **resources: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "resources": {"requests": resources}}
    return found | {"restartPolicy": "Always"} if always else found


def test_a_sidecar_takes_its_room_too() -> None:
    sidecar = with_others({"memory": "1Gi"}, [asking(cpu="5")])
    assert room(sidecar, mirror(node("a")), 100).pods == 1
    assert room(sidecar, mirror(node("a", cpu="10")), 100).pods == 2
    both = with_others({"memory": "1Gi", "cpu": "4"}, [asking(cpu="4500m")])
    assert room(both, mirror(node("a")), 100).pods == 0


def test_the_servers_memory_comes_beside_that_of_a_sidecar() -> None:
    sidecar = with_others({}, [asking(memory="6Gi")])
    assert room(sidecar, mirror(node("a")), 1500).pods == 2
    assert room(sidecar, mirror(node("a")), 3000).pods == 1


@pytest.mark.parametrize(
    ("init", "fits"),
    [
        ([], 4),
        ([asking("i", cpu="3")], 2),
        ([asking("i", cpu="1"), asking("j", cpu="1")], 4),
        ([asking("i", always=True, cpu="2")], 2),
        ([asking("i", always=True, cpu="2"), asking("j", cpu="6")], 1),
        ([asking("j", cpu="6"), asking("i", always=True, cpu="2")], 1),
        ([asking("j", cpu="9")], 0),
    ],
)
def test_init_containers_count_by_the_largest_and_sidecars_among_them_stay(
    init: list[dict[str, Any]], fits: int
) -> None:
    hd = deployment({"cpu": "2", "memory": "100Mi"}, initContainers=init)
    assert room(hd, mirror(node("a")), 100).pods == fits


@pytest.mark.parametrize(("capacity", "fits"), [("0", 0), ("1", 0), ("2", 1), ("110", 8)])
def test_a_node_takes_so_many_pods(capacity: str, fits: int) -> None:
    seen = mirror(node("a", pods=capacity), pod("p", "a", {}))
    assert room(deployment({"cpu": "1", "memory": "100Mi"}), seen, 100).pods == fits


def test_the_sidecars_of_pods_that_are_there_are_taken_too() -> None:
    there = pod("p", "a", {"cpu": "1"})
    there["spec"]["containers"].append(asking(cpu="2"))
    there["spec"]["initContainers"] = [asking("i", always=True, cpu="1"), asking("j", cpu="3")]
    there["spec"]["overhead"] = {"cpu": "500m"}
    one = deployment({"cpu": "3500m", "memory": "100Mi"})
    assert room(one, mirror(node("a"), there), 100).pods == 1
    assert room(deployment({"cpu": "3600m", "memory": "100Mi"}), mirror(node("a"), there), 100).pods == 0


def test_resources_of_the_pod_as_a_whole_stand_for_its_containers() -> None:
    hd = with_others({"memory": "1Gi"}, [asking(cpu="5")], resources={"requests": {"cpu": "2"}})
    assert room(hd, mirror(node("a")), 100).pods == 4


def test_the_pods_own_limit_is_what_the_server_may_spend() -> None:
    assert nodes.memory_limit_mib(deployment({"memory": "2Gi"})) == 2048
    assert nodes.memory_limit_mib(deployment({"memory": "2Gi", GPU: 1})) is None
    assert nodes.memory_limit_mib(deployment({})) is None
