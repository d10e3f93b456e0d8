"""The controllers of a cluster that HELIOS builds on: Deployments get a ReplicaSet and its pods, Jobs a pod,
and what has lost its owner goes.

Stepped by `scene`. Where the server refuses a pod, they say so where Kubernetes's own do: a Deployment in its
condition ReplicaFailure, a Job in an Event.
"""

from __future__ import annotations

from typing import Any

from helios_operator.cluster.kinds import EVENT, JOB, POD, REVISION, Kind, Object

from tests.cluster.fake.plain import copied
from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.store import Store, now

REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
_MANAGER = "kube-controller-manager"


class Controllers:
    def __init__(self, store: Store) -> None:
        self._store = store

    def step(self) -> None:
        self._store.collect()
        for obj in self._store.views(REVISION):
            self._deployment(obj)
        for obj in self._store.views(JOB):
            self._job(obj)

    # -- Deployments ----------------------------------------------------------------------------------------

    def _deployment(self, obj: Object) -> None:
        replicas = self._replica_set(obj)
        pods = self._owned(POD, replicas)
        wanted = int(obj["spec"].get("replicas", 1))
        failure = ""
        while len(pods) > wanted:
            going = pods.pop()
            if "deletionTimestamp" not in going["metadata"]:
                self._store.delete(POD, going["metadata"]["namespace"], going["metadata"]["name"])
        while len(pods) < wanted and not failure:
            try:
                pods.append(self._pod(replicas, obj["spec"]["template"]))
            except Refusal as error:
                failure = error.message
        ready = sum(is_ready(pod) for pod in pods)
        status = {
            "observedGeneration": obj["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
        }
        self._tell(REVISION, obj, status | {"conditions": _conditions(obj, ready >= wanted, failure)})

    def _replica_set(self, obj: Object) -> Object:
        if found := self._owned(REPLICA_SET, obj):
            return found[0]
        metadata = obj["metadata"]
        about = {
            "name": f"{metadata['name']}-7d9c",
            "namespace": metadata["namespace"],
            "labels": obj["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [_owner(obj)],
        }
        return self._store.create(REPLICA_SET, {"metadata": about, "spec": {}}, _MANAGER)

    # -- Jobs -----------------------------------------------------------------------------------------------

    def _job(self, obj: Object) -> None:
        status = obj.get("status") or {}
        if any(c["type"] in ("Complete", "Failed") for c in status.get("conditions", ())):
            return
        pods = self._owned(POD, obj)
        ended = [pod for pod in pods if pod.get("status", {}).get("phase") in ("Succeeded", "Failed")]
        failures = sum(pod["status"]["phase"] == "Failed" for pod in ended)
        told = {
            "startTime": status.get("startTime") or now(),
            "active": len(pods) - len(ended),
            "failed": failures,
        }
        if len(ended) > failures:
            self._tell(JOB, obj, told | {"completionTime": now(), "conditions": [_condition("Complete")]})
        elif failures > obj["spec"].get("backoffLimit", 6):
            reached = _condition(
                "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            )
            self._tell(JOB, obj, told | {"conditions": [reached]})
        else:
            self._tell(JOB, obj, told)
            if len(ended) == len(pods):
                self._start(obj)

    def _start(self, obj: Object) -> None:
        try:
            self._pod(obj, obj["spec"]["template"])
        except Refusal as error:
            self._say(obj, "FailedCreate", f"Error creating: {error.message}")

    # -- how ------------------------------------------------------------------------------------------------

    def _pod(self, owner: Object, template: Object) -> Object:
        metadata = copied(template.get("metadata") or {})
        metadata |= {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [_owner(owner)],
        }
        return self._store.create(POD, {"metadata": metadata, "spec": copied(template["spec"])}, _MANAGER)

    def _owned(self, kind: Kind, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        found = self._store.views(kind, owner["metadata"]["namespace"])
        return [o for o in found if any(r["uid"] == uid for r in o["metadata"].get("ownerReferences", ()))]

    def _say(self, about: Object, reason: str, message: str) -> None:
        """Once each."""
        metadata = about["metadata"]
        name = f"{metadata['name']}.{reason.lower()}"
        if self._store.view(EVENT, metadata["namespace"], name):
            return
        involved = {"kind": about["kind"], "namespace": metadata["namespace"], "name": metadata["name"]}
        event = {
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": involved | {"uid": metadata["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        self._store.create(EVENT, event, _MANAGER)

    def _tell(self, kind: Kind, obj: Object, status: Object) -> None:
        if obj.get("status") != status:
            changed = {"metadata": {k: obj["metadata"][k] for k in ("name", "namespace")}, "status": status}
            self._store.update(kind, {**obj, **changed, "metadata": _unversioned(obj)}, _MANAGER, "status")


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _unversioned(obj: Object) -> Object:
    return {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}


def _owner(obj: Object) -> Object:
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
    }


def _condition(type: str, reason: str = "", message: str = "", status: str = "True") -> Object:
    return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}


def _conditions(obj: Object, available: bool, failure: str) -> list[dict[str, Any]]:
    """With the times of those that stay as they were."""
    wanted = [_condition("Available", status="True" if available else "False")]
    if failure:
        wanted.append(_condition("ReplicaFailure", "FailedCreate", failure))
    before = {c["type"]: c for c in (obj.get("status") or {}).get("conditions", ())}
    same = ("status", "reason", "message")
    return [
        old if (old := before.get(c["type"])) and all(old[k] == c[k] for k in same) else c for c in wanted
    ]
