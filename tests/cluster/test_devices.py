"""What an accelerator is: read from nodes as the vendors' own labellers leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_operator.api.rows import Hardware
from helios_operator.cluster import nodes
from helios_operator.cluster.kinds import NODE
from helios_operator.cluster.mirror import Mirror

from tests.render import objects

_OBJECTS = Path(__file__).parent / "node_objects"
NVIDIA, AMD, INTEL = "nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915"
MI300X = "AMD_Instinct_MI300X_OAM"


def hardware(vendor: str, name: str, resource: str, count: int = 1) -> Hardware:
    """Of pods that ask for so many, in a cluster of that one node."""
    return nodes.hardware(_asking(resource, count), _cluster(vendor, name))


def _cluster(vendor: str, name: str) -> Mirror:
    found = yaml.safe_load_all((_OBJECTS / f"{vendor}.yaml").read_text())
    node: dict[str, Any] = next(each for each in found if each["metadata"]["name"] == name)
    node["metadata"] |= {"uid": name, "resourceVersion": "1"}
    mirror = Mirror()
    mirror.put(NODE, node | {"spec": {}})
    return mirror


def _node(mirror: Mirror) -> Any:
    return next(iter(mirror.all(NODE)))


def _asking(resource: str, count: int) -> Any:
    container = {"name": "helios-server", "resources": {"limits": {resource: str(count)}}}
    return objects.deployment(template={"spec": {"containers": [container]}})


def rounded(mib: int) -> int:
    return mib - mib % 256


@pytest.mark.parametrize(
    ("vendor", "node", "resource", "name", "memory_mib"),
    [
        ("nvidia", "whole", NVIDIA, "NVIDIA-L4", 23034),
        ("nvidia", "mixed", NVIDIA, "NVIDIA-A100-80GB-PCIe", 81920),
        ("nvidia", "mixed", "nvidia.com/mig-1g.10gb", "NVIDIA-A100-80GB-PCIe-MIG-1g.10gb", 9728),
        ("nvidia", "mixed", "nvidia.com/mig-2g.20gb", "NVIDIA-A100-80GB-PCIe-MIG-2g.20gb-SHARED", 9984),
        ("nvidia", "mixed", "nvidia.com/mig-3g.40gb", "NVIDIA-A100-80GB-PCIe-MIG-3g.40gb", 0),
        ("nvidia", "single", NVIDIA, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9984),
        ("nvidia", "invalid", NVIDIA, "NVIDIA-H100-80GB-HBM3-MIG-INVALID", 0),
        ("nvidia", "shared", NVIDIA, "Tesla-T4-SHARED", 3840),
        ("nvidia", "renamed", "nvidia.com/gpu.shared", "Tesla-T4-SHARED", 3840),
        ("nvidia", "renamed", NVIDIA, "Tesla-T4", 15360),
        ("nvidia", "unlabelled", NVIDIA, NVIDIA, 0),
        ("nvidia", "unlabelled", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb", 0),
        ("nvidia", "gke", NVIDIA, "nvidia-tesla-a100-1g.5gb", 0),
        ("amd", "whole", AMD, MI300X, 192 * 1024),
        ("amd", "openshift", AMD, "amd.com/gpu-74b5", 191 * 1024),
        ("amd", "first", AMD, "amd.com/gpu-6860", 16 * 1024),
        ("amd", "different", AMD, AMD, 0),
        ("amd", "partitioned", AMD, f"{MI300X}-cpx_nps4", 24 * 1024),
        ("amd", "partitioned", "amd.com/cpx_nps4", f"{MI300X}-cpx_nps4", 24 * 1024),
        ("amd", "mixed", "amd.com/cpx_nps4", f"{MI300X}-cpx_nps4", 0),
        ("amd", "mixed", "amd.com/spx_nps1", MI300X, 0),
        ("amd", "unlabelled", AMD, AMD, 0),
        ("intel", "whole", INTEL, "Max_1550", 128 * 1024),
        ("intel", "shared", INTEL, "Flex_170", 4 * 1024),
        ("intel", "by-rules", "gpu.intel.com/xe", "Flex_170", 0),
        ("intel", "unlabelled", INTEL, INTEL, 0),
    ],
)
def test_a_unit_is_what_its_own_labels_say(
    vendor: str, node: str, resource: str, name: str, memory_mib: int
) -> None:
    found = hardware(vendor, node, resource)
    assert (found.accelerator, found.accelerators, found.memory_mib) == (name, 1, rounded(memory_mib))


def test_a_device_of_another_vendor_is_not_known() -> None:
    seen = _cluster("nvidia", "unlabelled")
    _node(seen)["status"]["allocatable"]["habana.ai/gaudi"] = "8"
    found = nodes.hardware(_asking("habana.ai/gaudi", 1), seen)
    assert (found.accelerator, found.memory_mib) == ("habana.ai/gaudi", 0)


def test_several_units_have_their_memory_together() -> None:
    assert hardware("nvidia", "whole", NVIDIA, 2).memory_mib == rounded(2 * 23034)
    assert hardware("nvidia", "mixed", "nvidia.com/mig-1g.10gb", 2).memory_mib == 2 * 9728


@pytest.mark.parametrize("figure", ["23Gi", "-1", ""])
def test_a_label_that_is_no_figure_tells_nothing(figure: str) -> None:
    seen = _cluster("nvidia", "whole")
    _node(seen)["metadata"]["labels"]["nvidia.com/gpu.memory"] = figure
    assert nodes.hardware(_asking(NVIDIA, 1), seen).memory_mib == 0


def test_slices_are_room_by_their_own_resource() -> None:
    seen = _cluster("nvidia", "mixed")
    load = nodes.Load(seen)
    assert nodes.room(_asking("nvidia.com/mig-1g.10gb", 1), seen, load, 100).pods == 2
    assert nodes.room(_asking("nvidia.com/mig-3g.40gb", 1), seen, load, 100).pods == 1
    assert nodes.room(_asking("nvidia.com/mig-7g.80gb", 1), seen, load, 100).pods == 0
