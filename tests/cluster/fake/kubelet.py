"""Nodes: pods get an address and become ready, or run to their end.

Stepped by `scene`. What a serving pod would load, it takes on trust; what a Job would measure, `results`
says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from helios_operator.cluster.kinds import CONFIG_MAP, JOB, NODE, POD, SECRET, Object
from helios_operator.decide.snapshot import JobSpec
from helios_operator.render import labels
from helios_operator.render.configmap import LIMITS_KEY
from helios_operator.render.job import job_spec
from helios_operator.render.secret import token_of

from tests.cluster.fake import results
from tests.cluster.fake.pod import FakePod
from tests.cluster.fake.refusal import NotFoundRefusal
from tests.cluster.fake.store import Store, now

_MANAGER = "kubelet"


class Kubelet:
    """`pods`: those that serve, by name. `starts`: does a pod become ready? `result`: what a Job says; an
    empty text while it still runs; a result with an error fails it."""

    def __init__(self, store: Store) -> None:
        self.pods: dict[str, FakePod] = {}
        self.starts: Callable[[Object], bool] = lambda pod: True
        self.result: Callable[[JobSpec], str] = results.result
        self._store = store

    async def step(self) -> None:
        found = self._store.views(POD)
        for pod in found:
            with contextlib.suppress(NotFoundRefusal):  # it went meanwhile
                await self._look_after(pod)
        for name in self.pods.keys() - {pod["metadata"]["name"] for pod in found}:
            await self.pods.pop(name).close()

    async def _look_after(self, pod: Object) -> None:
        marks = pod["metadata"].get("labels") or {}
        if pod["metadata"].get("deletionTimestamp"):
            await self._end(pod)
        elif labels.REVISION in marks:
            await self._serve(pod)
        elif labels.PROFILES in marks:
            self._finish(pod)

    async def close(self) -> None:
        for pod in self.pods.values():
            await pod.close()
        self.pods.clear()

    async def _end(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if known := self.pods.pop(metadata["name"], None):
            await known.close()
        self._store.delete(POD, metadata["namespace"], metadata["name"], grace=0)

    async def _serve(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if metadata["name"] not in self.pods:
            made = self._pod(pod)
            if made is None or not self._bound(pod):
                return
            self.pods[metadata["name"]] = made
            await made.open()
        known = self.pods[metadata["name"]]
        ready = "True" if self.starts(pod) else "False"
        before = {c["type"]: c for c in pod.get("status", {}).get("conditions") or ()}
        if before.get("Ready", {}).get("status") == ready:
            return
        condition = {"type": "Ready", "status": ready, "lastTransitionTime": now()}
        container = {
            "name": "helios-server",
            "restartCount": 0,
            "state": {"running": {}},
            "started": ready == "True",
        }
        self._tell(
            pod,
            {
                "phase": "Running",
                "podIP": known.address,
                "conditions": [condition],
                "containerStatuses": [container],
            },
        )

    def _pod(self, pod: Object) -> FakePod | None:
        """None: what it mounts is not there yet."""
        space = pod["metadata"]["namespace"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        document = self._store.view(CONFIG_MAP, space, volumes["limits"]["configMap"]["name"])
        secret = self._store.view(SECRET, space, volumes["control"]["secret"]["secretName"])
        if document is None or secret is None:
            return None
        return FakePod(document["data"][LIMITS_KEY], token_of(secret))

    def _finish(self, pod: Object) -> None:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") or not self._bound(pod):
            return
        said = self.result(self._asked(pod))
        if not said:
            self._tell(pod, {"phase": "Running"})
            return
        failed = '"error":' in said and '"resolved"' not in said
        ended = {
            "exitCode": 2 if failed else 0,
            "reason": "Error" if failed else "Completed",
            "message": said,
        }
        container = {"name": "helios-profile", "restartCount": 0, "state": {"terminated": ended}}
        self._tell(pod, {"phase": "Failed" if failed else "Succeeded", "containerStatuses": [container]})

    def _asked(self, pod: Object) -> JobSpec:
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        return job_spec(self._store.get(JOB, pod["metadata"]["namespace"], owner))

    def _bound(self, pod: Object) -> bool:
        """To the first node; to none where there is none."""
        if pod["spec"].get("nodeName"):
            return True
        nodes = self._store.views(NODE)
        if nodes:
            name = nodes[0]["metadata"]["name"]
            self._store.merge(
                POD,
                pod["metadata"]["namespace"],
                pod["metadata"]["name"],
                {"spec": {"nodeName": name}},
                "scheduler",
            )
        return bool(nodes)

    def _tell(self, pod: Object, status: Object) -> None:
        where = POD, pod["metadata"]["namespace"], pod["metadata"]["name"]
        if (pod.get("status") or {}) != status:
            self._store.merge(*where, {"status": status}, _MANAGER, "status")
