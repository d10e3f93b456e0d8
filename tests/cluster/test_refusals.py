"""What a quota, a limit range or a webhook refuses: told in the server's words, and the rest goes on."""

from __future__ import annotations

import pytest
from helios_operator.cluster.kinds import JOB, NETWORK_POLICY, POD, REVISION, SERVICE, Kind

from tests.cluster.fake.guards import MemoryRange, Quota, Webhook
from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.scene import SOON, Place, scene
from tests.cluster.fake.store import Store


async def test_a_quota_on_jobs() -> None:
    """It serves, and says why nothing is measured; measured when there is room."""
    async with scene(policy=SOON) as place:
        place.store.guards.append(Quota(NAMESPACE, "count/jobs.batch", 0))
        place.create(deployment())
        told = await place.named("Ready", "exceeded quota: team-quota", "requested: count/jobs.batch=1")
        assert told["reason"] == "WriteRefused"
        await place.named("Profiled", "exceeded quota: team-quota")
        assert any("exceeded quota" in event for event in place.events())
        place.store.guards.clear()
        await place.ready()


async def test_a_quota_on_services() -> None:
    async with scene() as place:
        place.store.guards.append(Quota(NAMESPACE, "services", 1))
        place.create(deployment())
        told = await place.named("Ready", "services", "chat-pods", "exceeded quota")
        assert told["reason"] == "WriteRefused"
        await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        place.store.guards.clear()
        await place.ready()
        assert place.find(SERVICE, "chat-pods")


MEMORY = {"name": "helios-profile", "resources": {"requests": {"memory": "1500Mi"}}}
HEAVY = {"spec": {"containers": [MEMORY]}}


@pytest.mark.parametrize("job", [False, True], ids=["Deployment", "Job"])
@pytest.mark.parametrize("guard", [Quota(NAMESPACE, "pods", 0), MemoryRange(NAMESPACE, 1000)])
async def test_pods_that_nobody_can_make(guard: Quota | MemoryRange, job: bool) -> None:
    """In the first seconds "starting" would be a lie. Of Jobs too, whose controller has no condition."""
    async with scene() as place:
        if not job:
            place.create(deployment())
            serving = "helios.dev/revision=1"
            await place.until(lambda: place.store.list(POD, selector=serving))
            for pod in place.store.list(POD, selector=serving):
                place.store.delete(POD, NAMESPACE, pod["metadata"]["name"], grace=0)
        place.store.guards.append(guard)
        if job:
            place.create(deployment(profiling={"prompts": {"inline": ["a"]}, "template": HEAVY}))
        words = "exceeded quota" if isinstance(guard, Quota) else "maximum memory usage per Container"
        what = "Job i-" if job else "Deployment chat-1 gets no pods"
        told = await place.named("Available", what, "gets no pods", words)
        assert not told["message"].startswith("the first pod is starting")
        assert (await place.named("Ready", words))["reason"] == "PodsRefused"
        if job:
            await place.named("Profiled", what, words)
        place.store.guards.clear()
        await place.ready()


HEAVY = {
    "spec": {"containers": [{"name": "helios-profile", "resources": {"requests": {"memory": "1500Mi"}}}]}
}


async def test_more_replicas_than_the_quota_has() -> None:
    """What serves goes on serving, and the rest is named."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.store.guards.append(Quota(NAMESPACE, "pods", len(place.store.list(POD))))
        place.patch(replicas=2)
        await place.named("Ready", "Deployment chat-1 gets no pods", "exceeded quota")
        assert place.condition("Available")["status"] == "True"
        place.store.guards.clear()
        await place.until(lambda: place.status()["readyReplicas"] == 2)
        await place.ready()


@pytest.mark.parametrize("kind", [REVISION, JOB, SERVICE, NETWORK_POLICY], ids=lambda kind: kind.name)
@pytest.mark.parametrize("code", [400, 403])
async def test_a_webhook_that_denies(kind: Kind, code: int) -> None:
    async with scene(policy=SOON) as place:
        place.store.guards.append(Webhook(kind, "images of helios-server are not signed", code=code))
        place.create(deployment())
        words = 'admission webhook "policy.example.com" denied the request: images of helios-server'
        assert (await place.named("Ready", words))["reason"] == "WriteRefused"
        if kind is NETWORK_POLICY:
            await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        before = len(place.door.writes)
        await place.passes(8)
        refused = [call for call in place.door.writes[before:] if kind.plural in call[1]]
        assert len(refused) < 16, refused
        place.store.guards.clear()
        await place.ready()


async def test_a_template_that_the_server_finds_invalid() -> None:
    async with scene() as place:

        def strict(store: Store, verb: str, kind: Kind, obj: object) -> None:
            if kind is REVISION and verb == "create":
                raise Refusal(422, "Invalid", "spec.template.spec.containers[0].image: Required value")

        place.store.guards.append(strict)
        place.create(deployment())
        told = await place.named("Ready", "image: Required value")
        assert told["reason"] == "InvalidSpec"
        assert place.status()["phase"] == "Invalid"
        place.store.guards.clear()
        await place.ready()


async def test_a_refusal_while_it_serves_does_not_end_the_service() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.store.guards.append(Webhook(REVISION, "frozen"))
        place.patch(template={"metadata": {"annotations": {"a": "b"}}})
        await place.named("Ready", "frozen")
        assert _serves(place)
        await place.passes(4)
        assert _serves(place)
        place.store.guards.clear()
        await place.until(lambda: place.status()["active"]["revision"] == 2)
        await place.ready()


async def test_who_is_ready_again_has_no_old_words() -> None:
    """Not Ready is one spell, whatever the words; its time is when it began."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.store.guards.append(Webhook(REVISION, "frozen"))
        place.patch(replicas=2)
        first = await place.named("Ready", "frozen")
        await place.passes(4)
        assert place.condition("Ready")["lastTransitionTime"] == first["lastTransitionTime"]
        place.store.guards.clear()
        await place.ready()
        assert "frozen" not in str(place.status()["conditions"])


def _serves(place: Place) -> bool:
    return place.condition("Available")["status"] == "True" and place.routed() == 1
