"""One object that cannot be read, or about which nothing can be decided: it says so, what serves is looked
after, and all others go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helios_operator.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    MODEL,
    POD,
    PROFILE,
    REVISION,
    Kind,
)
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.cluster.fake import results
from tests.cluster.fake.objects import NAMESPACE, deployment, of
from tests.cluster.fake.scene import Place, scene


async def say(place: Place, kind: Kind, name: str, status: dict[str, Any]) -> None:
    """What another release of the operator wrote."""
    await place.between_passes()
    place.store.merge(kind, NAMESPACE, name, {"status": status}, "other", "status")


async def others_go_on(place: Place, name: str = "other") -> None:
    place.create(deployment(name))
    await place.ready(name)


# -- the status of a HeliosDeployment ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"reassessment": {"decision": "Rebalance"}},
            ("status.reassessment.decision", "'Rebalance'", "Keep"),
        ),
        ({"reassessment": {"lastTime": "yesterday"}}, ("status.reassessment.lastTime", "yesterday")),
        ({"rollout": {"revision": "first"}}, ("status.rollout.revision", "'first'")),
        ({"active": {"candidate": None}}, ("status.active.candidate", "is missing")),
        ({"candidates": [{"name": 3}]}, ("status.candidates[0].name", "not a text")),
        ({"history": "none"}, ("status.history", "not a list")),
    ],
)
async def test_a_status_of_another_release_stops_its_object_alone(
    status: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with scene() as place:
        place.create(deployment())
        before = await place.ready()
        await say(place, DEPLOYMENT, "chat", status)
        written = place.status()
        told = await place.named("Ready", *words)
        assert told["reason"] == "StatusUnreadable"
        await others_go_on(place)
        await place.passes()
        assert facts(place.status()) == facts(written)
        assert place.condition("Available")["status"] == "True"
        assert place.routed() == before["active"]["revision"]
        await say(place, DEPLOYMENT, "chat", {key: before[key] for key in status})
        await place.ready()
        assert place.status()["active"] == before["active"]


async def test_what_only_a_newer_operator_knows_outlives_an_older_one() -> None:
    """Its words and its fields: nothing but conditions and counts is written over them."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        await say(place, DEPLOYMENT, "chat", {"rollout": {"phase": "Balancing", "startTime": "soon"}})
        await place.named("Ready", "status.rollout.startTime")
        pod = next(iter(place.kubelet.pods))
        place.store.delete(POD, NAMESPACE, pod)
        await place.until(lambda: place.status()["readyReplicas"] == 0 or pod not in place.kubelet.pods)
        await place.until(lambda: place.status()["readyReplicas"] == 1)
        assert place.status()["rollout"]["phase"] == "Balancing"


def facts(status: dict[str, Any]) -> dict[str, Any]:
    counts = ("replicas", "readyReplicas", "updatedReplicas")
    return {key: value for key, value in status.items() if key not in ("conditions", "phase", *counts)}


# -- a spec that today's rules refuse ------------------------------------------------------------------------


async def break_spec(place: Place, name: str = "chat") -> None:
    """As an older release admitted it."""
    place.store.merge(DEPLOYMENT, NAMESPACE, name, {"spec": {"candidates": "none"}}, "kubectl")
    told = await place.named("Ready", "spec.candidates", name=name)
    assert told["reason"] == "InvalidSpec"


async def test_with_an_invalid_spec_what_serves_is_looked_after() -> None:
    async with scene() as place:
        place.create(deployment(replicas=2))
        await place.ready()
        await break_spec(place)
        assert place.condition("Available")["status"] == "True"
        place.kubelet.starts = lambda _: False
        first, second = list(place.kubelet.pods)
        for pod in (first, second):
            place.store.delete(POD, NAMESPACE, pod)
        await place.until(lambda: place.status()["readyReplicas"] == 0)
        assert place.condition("Available")["status"] == "False"
        place.kubelet.starts = lambda _: True
        await place.until(lambda: place.status()["readyReplicas"] == 2)
        assert place.condition("Available")["message"].startswith("2/2 pods serve ")
        assert place.condition("Ready")["reason"] == "InvalidSpec"
        await others_go_on(place)


async def test_with_an_invalid_spec_pods_are_told_of_their_document() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        await break_spec(place)
        (pod,) = place.kubelet.pods.values()
        generation = pod.limits.generation
        pod.limits.generation = generation - 1  # as if it had missed the last change
        place.store.merge(DEPLOYMENT, NAMESPACE, "chat", {"metadata": {"labels": {"a": "b"}}}, "kubectl")
        await place.until(lambda: pod.limits.generation == generation)


async def test_with_an_invalid_spec_an_old_revision_ends() -> None:
    async with scene() as place:
        rollout = {"scaleDownDelaySeconds": 1, "drain": {"preStopSeconds": 0, "timeoutSeconds": 1}}
        place.create(deployment(rollout=rollout))
        first = (await place.ready())["active"]["revision"]
        place.patch(template={"metadata": {"annotations": {"a": "b"}}})
        await place.until(lambda: place.routed() not in (0, first))
        await place.until(lambda: place.status().get("rollout", {}).get("phase") == "Draining")
        await break_spec(place)
        await place.until(lambda: place.find(REVISION, f"chat-{first}") is None)
        assert place.find(REVISION, f"chat-{place.routed()}")
        assert place.condition("Ready")["reason"] == "InvalidSpec"


# -- what many share -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Archived"}, ("status.phase", "'Archived'", "Complete")),
        ({"completionTime": "yesterday"}, ("status.completionTime",)),
        ({"timing": {"fit": {"stepNs": "fast"}}}, ("stepNs", "'fast'")),
    ],
)
async def test_a_row_that_cannot_be_read_is_left_out_and_named(
    status: dict[str, Any], words: tuple[str, ...]
) -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        row = next(
            obj["metadata"]["name"] for obj in place.store.list(PROFILE) if obj["spec"]["kind"] == "Timing"
        )
        place.kubelet.result = inspections_only  # so that it is not measured anew at once
        await say(place, PROFILE, row, status)
        await place.named("Profiled", "left out", f"HeliosProfile {row}", *words)
        assert place.condition("Available")["status"] == "True"
        place.create(deployment("other"))
        await place.until(lambda: place.condition("Available", "other")["status"] == "True")


def inspections_only(asked: JobSpec) -> str:
    return results.result(asked) if asked.kind is JobKind.INSPECT else ""


async def test_a_row_that_could_not_be_read_is_measured_again() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        row = place.store.list(PROFILE)[0]["metadata"]["name"]
        await say(place, PROFILE, row, {"phase": "Archived"})
        await place.until(lambda: place.get(PROFILE, row)["status"]["phase"] == "Complete")
        await place.ready()


async def test_an_entry_of_the_catalogue_keeps_a_status_of_another_release() -> None:
    async with scene() as place:
        for name in ("deep", "flat"):
            metadata = {"labels": {"set": "a"}}
            place.create(of(MODEL, name, metadata=metadata, spec={"uri": f"pvc://models/{name}"}))
        spec = {"candidates": None, "candidateSelector": {"matchLabels": {"set": "a"}}}
        wanted = deployment()
        wanted["spec"] = {k: v for k, v in (wanted["spec"] | spec).items() if v is not None}
        place.create(wanted)
        await place.ready()
        await say(place, MODEL, "deep", {"observedGeneration": "first"})
        await place.until(lambda: "left out: HeliosModel deep" in place.condition("Profiled")["message"])
        await place.passes()
        assert place.get(MODEL, "deep")["status"]["observedGeneration"] == "first"
        assert {c["name"] for c in place.status()["candidates"]} == {"deep", "flat"}


async def test_a_job_of_which_nobody_knows_what_it_was_asked_is_named() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        name = place.store.list(JOB)[0]["metadata"]["name"]
        asked = {"metadata": {"annotations": {"helios.dev/job-spec": '{"name": "x", "kind": "Energy"}'}}}
        place.store.merge(JOB, NAMESPACE, name, asked, "somebody")
        await place.until(lambda: f"left out: Job {name}" in place.condition("Profiled")["message"])
        assert "Energy" in place.condition("Profiled")["message"]
        await place.ready()


# -- the limits document of a revision -----------------------------------------------------------------------


async def test_a_damaged_document_is_restored_from_the_pods_that_remember_it() -> None:
    async with scene() as place:
        place.create(deployment())
        revision = (await place.ready())["active"]["revision"]
        name = f"chat-{revision}"
        before = json.loads(place.get(CONFIG_MAP, name)["data"]["limits.json"])
        await damage(place, name)
        await place.until(lambda: place.get(CONFIG_MAP, name)["data"]["limits.json"] != "{")
        assert json.loads(place.get(CONFIG_MAP, name)["data"]["limits.json"]) == before
        await place.ready()


async def test_a_damaged_document_that_nobody_remembers_shows_as_a_failed_pass() -> None:
    async with scene() as place:
        place.create(deployment())
        status = await place.ready()
        for pod in place.kubelet.pods.values():
            await pod.close()
        await damage(place, f"chat-{status['active']['revision']}")
        told = await place.named("Ready", f"configmap/chat-{status['active']['revision']}", "is damaged")
        assert told["reason"] == "PassFailed"
        assert any(event.startswith("PassFailed: configmap/chat-") for event in place.events())
        await others_go_on(place)
        assert place.routed() == status["active"]["revision"]


async def damage(place: Place, name: str) -> None:
    place.store.merge(CONFIG_MAP, NAMESPACE, name, {"data": {"limits.json": "{"}}, "somebody")
    await place.stop_operator()  # what it read lasts for half a minute
    await place.start_operator()


# -- whatever else -------------------------------------------------------------------------------------------


async def test_an_object_in_no_shape_at_all_ends_nothing() -> None:
    async with scene() as place:
        assert place.operator is not None
        for kind in (DEPLOYMENT, PROFILE, MODEL, JOB, POD, REVISION):
            place.operator.seen(kind, {"metadata": {"name": "odd", "resourceVersion": "many"}})
            place.operator.gone(kind, {"metadata": None})
        place.create(deployment())
        await place.ready()


async def test_a_fault_in_one_pass_shows_there_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from helios_operator.cluster import passing

    sound = passing.decide

    def faulty(snapshot: Any, now: Any, policy: Any) -> Any:
        if snapshot.deployment.name == "chat" and not healed:
            raise ZeroDivisionError("of ours")
        return sound(snapshot, now, policy)

    healed: list[bool] = []
    monkeypatch.setattr(passing, "decide", faulty)
    async with scene() as place:
        place.create(deployment())
        told = await place.named("Ready", "ZeroDivisionError: of ours")
        assert told["reason"] == "PassFailed"
        await others_go_on(place)
        healed.append(True)
        await place.ready()
