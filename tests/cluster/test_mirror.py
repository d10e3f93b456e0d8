"""What the mirror shows is the newest that anybody has told of, own writes included."""

from __future__ import annotations

from typing import Any

from helios_operator.cluster.kinds import DEPLOYMENT, NODE, POD, REVISION, Object, key_of
from helios_operator.cluster.mirror import Mirror


def obj(name: str, version: int, uid: str = "", labels: dict[str, str] | None = None, **more: Any) -> Object:
    metadata = {"name": name, "namespace": "a", "uid": uid or name, "resourceVersion": str(version)}
    return {"metadata": metadata | ({"labels": labels} if labels else {}), **more}


def test_older_news_never_replaces_what_we_wrote() -> None:
    mirror = Mirror()
    assert mirror.put(DEPLOYMENT, obj("chat", 5, status={"ours": True}))
    assert not mirror.put(DEPLOYMENT, obj("chat", 4))
    assert not mirror.put(DEPLOYMENT, obj("chat", 5))
    assert (mirror.get(DEPLOYMENT, "a", "chat") or {})["status"] == {"ours": True}
    assert mirror.put(DEPLOYMENT, obj("chat", 6))


def test_late_news_do_not_bring_the_deleted_back() -> None:
    mirror = Mirror()
    mirror.put(REVISION, obj("chat-1", 5, "u1"))
    assert mirror.forget(REVISION, obj("chat-1", 5, "u1"))
    assert not mirror.put(REVISION, obj("chat-1", 7, "u1"))
    assert mirror.get(REVISION, "a", "chat-1") is None


def test_its_successor_of_the_same_name_stays() -> None:
    mirror = Mirror()
    mirror.put(REVISION, obj("chat-1", 9, "u2"))
    assert not mirror.forget(REVISION, obj("chat-1", 5, "u1"))
    assert mirror.get(REVISION, "a", "chat-1") is not None


def test_objects_are_found_by_their_deployment() -> None:
    mirror = Mirror()
    mine = {"helios.dev/deployment": "chat"}
    mirror.put(REVISION, obj("chat-1", 1, labels=mine))
    mirror.put(REVISION, obj("other-1", 2, labels={"helios.dev/deployment": "other"}))
    mirror.put(POD, obj("job", 3, labels={"helios.dev/profiles": "chat"}))
    assert [o["metadata"]["name"] for o in mirror.of(REVISION, ("a", "chat"))] == ["chat-1"]
    assert [o["metadata"]["name"] for o in mirror.of(POD, ("a", "chat"))] == ["job"]
    mirror.forget(REVISION, obj("chat-1", 1))
    assert mirror.of(REVISION, ("a", "chat")) == []


def test_a_comparison_finds_what_nobody_told_of() -> None:
    mirror = Mirror()
    mirror.put(DEPLOYMENT, obj("gone", 1))
    mirror.put(DEPLOYMENT, obj("same", 2))
    before = mirror.newest(DEPLOYMENT)
    mirror.put(DEPLOYMENT, obj("meanwhile", 4))
    listed = [obj("same", 2), obj("new", 3)]
    missed = mirror.take(DEPLOYMENT, listed) + mirror.clear(DEPLOYMENT, {key_of(o) for o in listed}, before)
    assert {o["metadata"]["name"] for o in missed} == {"gone", "new"}
    assert {o["metadata"]["name"] for o in mirror.all(DEPLOYMENT)} == {"same", "meanwhile", "new"}


def test_of_foreign_pods_only_the_room_they_take_is_kept() -> None:
    mirror = Mirror()
    containers = [{"name": "c", "env": ["much"], "resources": {"requests": {"cpu": "1"}}}]
    mirror.put(
        POD, obj("theirs", 1, spec={"nodeName": "n", "containers": containers}, status={"phase": "Running"})
    )
    kept = mirror.get(POD, "a", "theirs") or {}
    assert kept["spec"] == {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "1"}}}]}
    mirror.put(NODE, {"metadata": {"name": "n", "resourceVersion": "1"}, "status": {"images": ["much"]}})
    assert "images" not in (mirror.get(NODE, "", "n") or {})["status"]
