"""What a real server refuses, in its own words; and whose objects it would not let us touch."""

from __future__ import annotations

from helios_operator.cluster.kinds import NETWORK_POLICY, SERVICE, Kind

from tests.cluster.live.scene import Measured, Scene, condition

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")


async def test_a_quota_on_pods_is_named_and_lifted(place: Scene) -> None:
    """First of the Inspect Job's pod, of which only an Event tells."""
    await place.make(QUOTA, "team-quota", {"spec": {"hard": {"pods": "0"}}})
    await place.start_operator()
    await place.create(place.deployment())
    await place.until(lambda s: "exceeded quota: team-quota" in _words(s, "Ready"), what="not named")
    assert condition(await place.status(), "Ready")["reason"] == "PodsRefused"
    await place.admin.delete(QUOTA, place.namespace, "team-quota")
    await place.until(lambda s: s.get("active"), what="it does not serve", seconds=600)


async def test_another_ones_service_and_policy_stay(place: Scene, measured: Measured) -> None:
    ports = [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": 80}]
    await place.make(SERVICE, "chat-pods", {"spec": {"selector": {"app": "theirs"}, "ports": ports}})
    theirs = {"spec": {"podSelector": {"matchLabels": {"app": "theirs"}}, "policyTypes": ["Ingress"]}}
    await place.make(NETWORK_POLICY, "chat", theirs)
    await place.start_operator()
    await place.create(place.deployment(), measured)
    for refused in ("Service chat-pods", "NetworkPolicy chat"):
        await place.until(lambda s, words=refused: words in _words(s, "Ready"), what=f"no {refused}")
    await place.until(lambda s: condition(s, "Available")["status"] == "True", what="it does not serve")
    service = await place.admin.get(SERVICE, place.namespace, "chat-pods") or {}
    assert service["spec"]["selector"] == {"app": "theirs"}
    assert not service["metadata"].get("ownerReferences")
    await place.admin.delete(SERVICE, place.namespace, "chat-pods")
    await place.admin.delete(NETWORK_POLICY, place.namespace, "chat")
    await place.ready()


def _words(status: dict[str, object], kind: str) -> str:
    return str(condition(status, kind).get("message", ""))
