"""What the mirror shows is the newest that anybody has told of, own writes included."""

from __future__ import annotations

import tracemalloc
from typing import Any

from helios_operator.cluster.kinds import DEPLOYMENT, NODE, POD, REVISION, Object, key_of
from helios_operator.cluster.mirror import Mirror

from tests.sizes import examples


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


def test_a_list_shows_that_the_server_was_put_back_to_an_older_state() -> None:
    """What was known when it was asked for and is listed older, is older; what was gone is there again."""
    mirror = Mirror()
    mirror.put(DEPLOYMENT, obj("chat", 50, status={"of": "later"}))
    mirror.put(DEPLOYMENT, obj("deleted", 40))
    mirror.forget(DEPLOYMENT, obj("deleted", 41))
    mirror.put(DEPLOYMENT, obj("later", 45))
    before, buried = mirror.newest(DEPLOYMENT), mirror.buried
    mirror.put(DEPLOYMENT, obj("meanwhile", 51))
    mirror.put(DEPLOYMENT, obj("gone-meanwhile", 52))
    mirror.forget(DEPLOYMENT, obj("gone-meanwhile", 53))
    listed = [obj("chat", 30, status={"of": "before"}), obj("deleted", 20), obj("gone-meanwhile", 25)]
    taken = mirror.take(DEPLOYMENT, listed, before, buried)
    mirror.clear(DEPLOYMENT, {key_of(o) for o in listed}, before)
    assert [o["metadata"]["name"] for o in taken] == ["chat", "deleted"]
    assert {o["metadata"]["name"] for o in mirror.all(DEPLOYMENT)} == {"chat", "deleted", "meanwhile"}
    assert (mirror.get(DEPLOYMENT, "a", "chat") or {})["status"] == {"of": "before"}
    assert mirror.put(DEPLOYMENT, obj("chat", 31))  # and its news are news again


def test_pods_of_others_that_take_no_room_are_not_kept() -> None:
    mirror = Mirror()
    waiting = obj("p", 1, spec={"containers": []}, status={"phase": "Pending"})
    running = obj("p", 2, spec={"nodeName": "n", "containers": []}, status={"phase": "Running"})
    assert not mirror.put(POD, waiting)
    assert mirror.put(POD, running)
    assert not mirror.put(POD, running | {"metadata": {**running["metadata"], "resourceVersion": "2"}})
    assert not mirror.put(POD, obj("p", 3, spec=running["spec"], status={"phase": "Succeeded"}))
    assert mirror.count(POD) == 0
    ours = {"helios.dev/profiles": "chat"}
    assert mirror.put(POD, obj("j", 4, labels=ours, spec={"containers": []}, status={"phase": "Pending"}))
    assert not Mirror(room=False).put(POD, running)


def test_thousands_of_pods_of_others_take_little_memory() -> None:
    """Of a few hundred templates, on a thousand nodes: twenty thousand, or in `make check` four."""
    number_of_pods = examples(20_000, long=20_000)
    mirror = Mirror()
    tracemalloc.start()
    try:
        for number in range(number_of_pods):
            mirror.put(POD, foreign(number))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert mirror.count(POD) == number_of_pods
    assert taken / number_of_pods < 2048


def foreign(number: int) -> Object:
    """As large as pods are."""
    env = [{"name": f"VARIABLE_{index}", "value": "x" * 40} for index in range(40)]
    requests = {"requests": {"cpu": "100m", "memory": f"{number % 300}Mi"}}
    container = {"name": "c", "image": "i" * 80, "env": env, "resources": requests}
    spec = {"nodeName": f"node-{number % 1000}", "containers": [container]}
    return obj(f"pod-{number}", number + 1, spec=spec, status={"phase": "Running", "podIP": "10.0.0.1"})


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
