"""What the tests on a node need besides Kubernetes, and what of it is missing: `python -m
tests.cluster.on_node.means` says so in one line, or nothing.

HELIOS_LOAD_IMAGE is the command that hands an image archive to the cluster's nodes; HELIOS_BUILD_IMAGES makes
the images, for those who need options of `deploy/docker/build`. HELIOS_NODE_CACHE: where the nodes see this
machine's cache of models, if not under the same path.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from pathlib import Path

from helios_operator.cluster.kinds import NODE, Object
from helios_server.models.cache import cache_root

from tests.cluster.admin import Admin

ROOT = Path(__file__).parents[3]


def build_command() -> list[str]:
    return shlex.split(os.environ.get("HELIOS_BUILD_IMAGES", "deploy/docker/build"))


def load_command() -> list[str]:
    return shlex.split(os.environ.get("HELIOS_LOAD_IMAGE", ""))


def models() -> Path:
    """The folder of models, as the nodes see it."""
    return Path(os.environ.get("HELIOS_NODE_CACHE", cache_root())) / "models"


def missing() -> str:
    """Why these tests cannot run here; empty when they can."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster; start one that has a node, and export KUBECONFIG"
    if not asyncio.run(_has_node()):
        return "the cluster of KUBECONFIG has no node that is ready; give it one"
    if not load_command():
        command = "'kind load image-archive'"
        return f"HELIOS_LOAD_IMAGE is not set; give the command that loads an archive, such as {command}"
    if build_command()[0] == "deploy/docker/build" and not (shutil.which("podman") or shutil.which("docker")):
        return "neither podman nor docker is installed, to build the images with; install one"
    return ""


async def _has_node() -> bool:
    admin = await Admin.connect()
    try:
        return any(_is_usable(node) for node in await admin.list(NODE))
    finally:
        await admin.close()


def _is_usable(node: Object) -> bool:
    """Of a kubelet, which says its version: other tests make nodes that are nothing but objects."""
    status = node.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    return (
        ready
        and bool(status.get("nodeInfo", {}).get("kubeletVersion"))
        and not node["spec"].get("unschedulable")
    )


if __name__ == "__main__":
    print(missing())
