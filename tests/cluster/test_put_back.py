"""Objects of HELIOS that somebody deleted or changed stand again as they were; nothing else is undone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from helios_operator.cluster import operator, reads
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    CONFIG_MAP,
    DEPLOYMENT,
    NETWORK_POLICY,
    REVISION,
    SECRET,
    SERVICE,
    Kind,
    Object,
)

from tests.cluster.fake.guards import Webhook
from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.scene import Place, scene
from tests.cluster.fake.store import News

KEPT = [
    (SERVICE, "chat"),
    (SERVICE, "chat-replicas"),
    (SERVICE, "chat-pods"),
    (NETWORK_POLICY, "chat"),
    (NETWORK_POLICY, "chat-profiling"),
    (BUDGET_V1, "chat"),
    (SECRET, "chat-control"),
    (CONFIG_MAP, "chat-1"),
]
EDITS: list[tuple[Kind, str, Object]] = [
    (SERVICE, "chat", {"spec": {"selector": {"app": "theirs"}}}),
    (SERVICE, "chat", {"spec": {"selector": {"helios.dev/revision": "77"}}}),
    (SERVICE, "chat", {"spec": {"selector": {"helios.dev/revision": None}}}),
    (SERVICE, "chat", {"spec": {"ports": [{"name": "grpc", "port": 1, "targetPort": 1, "protocol": "TCP"}]}}),
    (SERVICE, "chat-replicas", {"spec": {"selector": {"helios.dev/revision": "77"}}}),
    (SERVICE, "chat-replicas", {"spec": {"publishNotReadyAddresses": True}}),
    (SERVICE, "chat-pods", {"spec": {"publishNotReadyAddresses": False}}),
    (SERVICE, "chat-pods", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "them"}}}),
    (NETWORK_POLICY, "chat", {"spec": {"ingress": [{}]}}),
    (NETWORK_POLICY, "chat", {"spec": {"ingress": None}}),
    (NETWORK_POLICY, "chat-profiling", {"spec": {"ingress": [{}]}}),
    (NETWORK_POLICY, "chat-profiling", {"spec": {"podSelector": {"matchLabels": {"more": "1"}}}}),
    (NETWORK_POLICY, "chat-profiling", {"metadata": {"ownerReferences": None}}),
    (NETWORK_POLICY, "chat", {"metadata": {"labels": {"helios.dev/deployment": None}}}),
    (BUDGET_V1, "chat", {"spec": {"maxUnavailable": 2}}),
    (BUDGET_V1, "chat", {"spec": {"selector": {"matchLabels": {"more": "1"}}}}),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read by name is read again at once."""
    monkeypatch.setattr(reads, "_SECONDS", 0.1)
    monkeypatch.setattr(reads, "_MISSING_SECONDS", 0.1)
    monkeypatch.setattr(reads, "_MOST_PER_SECOND", 1000.0)
    monkeypatch.setattr(operator, "_LISTED_SECONDS", 0.1)


@pytest.mark.parametrize(("kind", "name"), KEPT, ids=lambda v: v.name if isinstance(v, Kind) else v)
async def test_what_was_deleted_is_made_again(kind: Kind, name: str) -> None:
    async with scene() as place:
        place.create(deployment(replicas=2))
        await place.ready()
        before = place.get(kind, name)
        place.store.delete(kind, NAMESPACE, name)
        await place.until(lambda: place.find(kind, name), "it is not made again")
        after = place.get(kind, name)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
        if kind is not SECRET:
            assert (after.get("spec"), after.get("data")) == (before.get("spec"), before.get("data"))
        await place.ready()


@pytest.mark.parametrize(("kind", "name", "edit"), EDITS, ids=str)
async def test_what_was_changed_is_put_back(kind: Kind, name: str, edit: Object) -> None:
    async with scene() as place:
        place.create(deployment(replicas=2))
        await place.ready()
        before = place.get(kind, name)
        place.store.merge(kind, NAMESPACE, name, copy.deepcopy(edit), "kubectl-edit")
        await place.until(lambda: _holds(before, place.get(kind, name)), "it is not put back")
        assert place.routed() == 1


async def test_fields_of_others_stay() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        theirs: Object = {
            "metadata": {"annotations": {"mesh.example.com/port": "9"}, "labels": {"team": "a"}},
            "spec": {"internalTrafficPolicy": "Local"},
        }
        place.store.merge(SERVICE, NAMESPACE, "chat", theirs, "mesh")
        place.store.merge(SERVICE, NAMESPACE, "chat", {"spec": {"selector": {"a": "b"}}}, "kubectl-edit")
        await place.until(lambda: "a" not in place.get(SERVICE, "chat")["spec"]["selector"])
        assert _holds(theirs, place.get(SERVICE, "chat"))


async def test_who_changes_it_again_and_again_is_answered_seldom() -> None:
    """Two that fight over a field do not load the server."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        edits = 0

        def edit() -> None:
            nonlocal edits
            if place.get(SERVICE, "chat-pods")["spec"]["publishNotReadyAddresses"]:
                edits += 1
                place.store.merge(
                    SERVICE, NAMESPACE, "chat-pods", {"spec": {"publishNotReadyAddresses": False}}, "mesh"
                )

        for _ in range(10):
            edit()
            await place.passes(1)
        assert 1 < edits <= 4


async def test_the_client_service_deleted_during_a_surge_leads_to_what_serves() -> None:
    """Its successor has no ready pod yet."""
    async with scene() as place:
        await _begin_surge(place)
        routes, _ = _note(place)
        place.store.delete(SERVICE, NAMESPACE, "chat")
        await place.until(lambda: place.find(SERVICE, "chat"), "it is not made again")
        assert routes == [1]
        await place.passes()
        assert (place.routed(), place.routed("chat-replicas")) == (1, 1)
        place.kubelet.starts = lambda pod: True
        await place.until(lambda: place.routed() == 2, "the surge does not end")
        await place.until(lambda: place.routed("chat-replicas") == 2, "its pods' names stay behind")


@pytest.mark.parametrize("edit", [None, {"spec": {"selector": {"helios.dev/revision": "77"}}}], ids=str)
async def test_a_pass_sees_what_it_ensured(edit: Object | None) -> None:
    """The client Service is deleted, or changed, between the two: the policies after it are read there."""
    async with scene() as place:
        await _begin_surge(place)
        routes, served = _note(place)
        done: list[Object] = []

        def meddle(method: str, path: str) -> None:
            if path == NETWORK_POLICY.path(NAMESPACE, "chat") and not done:
                done.append(_meddle(place, "chat", edit))

        place.door.fails = meddle
        await place.until(lambda: done and place.routed() == 1, "it is not put back")
        await place.passes()
        assert set(routes) <= {1, 77}, routes
        assert set(served) <= {1}, served
        assert place.condition("Available")["status"] == "True"


async def test_what_served_is_known_while_no_service_can_be_made() -> None:
    async with scene() as place:
        await _begin_surge(place)
        routes, served = _note(place)
        place.store.guards.append(Webhook(SERVICE, "services are frozen"))
        for name in ("chat", "chat-replicas"):
            _meddle(place, name, None)
        await place.named("Ready", "services are frozen")
        await place.passes()
        place.store.guards.clear()
        await place.until(lambda: place.routed() and place.routed("chat-replicas"), "they are not made again")
        assert set(routes) == {1}
        assert set(served) <= {1}, served


async def _begin_surge(place: Place) -> None:
    """Revision 1 serves, and no pod of revision 2 becomes ready."""
    place.create(deployment())
    await place.ready()
    place.kubelet.starts = lambda pod: pod["metadata"]["labels"]["helios.dev/revision"] == "1"
    place.patch(template={"metadata": {"annotations": {"a": "b"}}})
    await place.until(lambda: len(place.store.list(REVISION)) == 2, "no surge")


def _note(place: Place) -> tuple[list[int], list[int | None]]:
    """From now on: where the client Service leads, and which revision the status says to serve."""
    routes: list[int] = []
    served: list[int | None] = []

    def note(news: News) -> None:
        if news.kind is SERVICE and news.obj["metadata"]["name"] == "chat" and news.type != "DELETED":
            routes.append(place.routed())
        elif news.kind is DEPLOYMENT:
            served.append(news.obj["status"].get("active", {}).get("revision"))

    place.store.told.append(note)
    return routes, served


def _meddle(place: Place, name: str, edit: Object | None) -> Object:
    if edit is None:
        return place.store.delete(SERVICE, NAMESPACE, name)
    return place.store.merge(SERVICE, NAMESPACE, name, copy.deepcopy(edit), "kubectl-edit")


async def test_a_secret_without_its_token_is_named() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.store.merge(SECRET, NAMESPACE, "chat-control", {"data": {"token": None}}, "kubectl-edit")
        await place.named("Ready", "Secret chat-control", "holds no token", "delete it")
        place.store.delete(SECRET, NAMESPACE, "chat-control")
        await place.until(lambda: place.condition("Ready")["status"] == "True")


async def test_etcd_restored_to_an_older_state() -> None:
    """Versions begin again at a lower number, and what was deleted is there again: news are news again."""
    async with scene() as place:
        place.create(deployment())
        place.create(deployment("other"))
        await place.ready()
        await place.ready("other")
        backup = place.store.backup()
        for number in range(60):
            note = {"metadata": {"annotations": {"n": str(number)}}}
            place.store.merge(DEPLOYMENT, NAMESPACE, "chat", note, "kubectl")
        place.store.delete(DEPLOYMENT, NAMESPACE, "other")
        await place.until(lambda: not place.find(REVISION, "other-1"))
        await place.passes()
        place.store.restore(backup)
        place.relist()
        place.patch(replicas=2)
        place.patch("other", replicas=2)
        for name in ("chat", "other"):
            await place.until(
                lambda name=name: place.status(name)["readyReplicas"] == 2, "the news are refused"
            )
        place.store.delete(DEPLOYMENT, NAMESPACE, "chat")
        await place.until(lambda: not place.find(REVISION, "chat-1"), "it is not cleared away")


async def test_a_guard_that_changes_what_is_kept_is_not_asked_for_ever() -> None:
    """Put back is refused: named, and tried again with patience."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.store.merge(NETWORK_POLICY, NAMESPACE, "chat", {"spec": {"ingress": None}}, "kubectl-edit")
        place.store.guards.append(Webhook(NETWORK_POLICY, "policies are frozen"))
        await place.named("Ready", "policies are frozen")
        place.store.guards.clear()
        await place.ready()


def _holds(wanted: Any, found: Any) -> bool:
    """All of it, but for what the server counts."""
    if isinstance(wanted, dict):
        ignored = ("managedFields", "resourceVersion", "generation")
        return isinstance(found, dict) and all(
            _holds(value, found.get(key)) for key, value in wanted.items() if key not in ignored
        )
    if isinstance(wanted, list) and wanted and "port" in str(wanted[0]):
        return all(any(_holds(item, other) for other in found or ()) for item in wanted)
    return bool(wanted == found)
