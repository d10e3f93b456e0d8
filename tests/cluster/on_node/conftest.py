"""These tests need a cluster with a node, and the means to build images and hand them to it: `make
test-cluster` says what is missing. They install the chart, and work in namespaces of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from examples.demo.__main__ import prepare
from examples.demo.screen import Screen
from tests.cluster.admin import NAMESPACE, VOLUME, Admin
from tests.cluster.on_node import means
from tests.cluster.on_node.release import Release, release
from tests.cluster.on_node.served import ServedPlace
from tests.cluster.place import claim

if not os.environ.get("HELIOS_TEST_CLUSTER") or means.missing():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def models() -> None:
    """The demo's two backbones, in the cache that the claim `models` shows to the pods."""
    prepare(Screen())


@pytest.fixture(scope="session")
def chart(models: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with release(tmp_path_factory.mktemp("release")) as made:
        yield made


@pytest.fixture
def installed(chart: Release) -> Release:
    if not chart.installed:
        chart.install()
    return chart


@pytest.fixture
async def place(installed: Release) -> AsyncIterator[ServedPlace]:
    """A namespace with the claim, gone with all that is in it at the end."""
    admin = await Admin.connect()
    assert isinstance(admin, Admin)
    namespace = f"helios-node-{uuid.uuid4().hex[:6]}"
    try:
        await admin.apply(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        )
        await claim(admin, namespace, "models", str(means.models()))
        yield ServedPlace(admin, namespace)
    finally:
        await admin.delete(NAMESPACE, "", namespace)
        await admin.delete(VOLUME, "", f"models-{namespace}")
        await admin.close()
