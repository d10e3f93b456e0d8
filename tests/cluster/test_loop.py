"""The whole loop in a cluster of dictionaries: from nothing to Ready, and to the last object again."""

from __future__ import annotations

from helios_operator.cluster.kinds import DEPLOYMENT, PROFILE, REVISION, SERVICE

from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.scene import KINDS, scene


async def test_from_nothing_to_ready_and_to_nothing() -> None:
    async with scene() as place:
        before = {(kind, obj["metadata"]["name"]) for kind in KINDS for obj in place.store.list(kind)}
        place.create(deployment())
        status = await place.ready()
        assert place.routed() == status["active"]["revision"]
        assert [obj["metadata"]["name"] for obj in place.store.list(REVISION)] == ["chat-1"]
        assert place.store.list(PROFILE)
        assert place.find(SERVICE, "chat-pods")
        place.store.delete(DEPLOYMENT, NAMESPACE, "chat")
        await place.until(
            lambda: (
                {(k, o["metadata"]["name"]) for k in KINDS for o in place.store.list(k) if k.name != "Event"}
                == before
            )
        )
