"""The port of OpenAI's API at the client Service: there once the pods behind it have it, and none restarts
for it."""

from __future__ import annotations

import copy
from typing import Any

from helios_operator.cluster.kinds import REVISION, SERVICE

from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.scene import Place, scene


def ports(place: Place) -> dict[str, int]:
    return {port["name"]: port["port"] for port in place.get(SERVICE, "chat")["spec"]["ports"]}


async def test_pods_of_the_release_before_are_not_restarted_and_get_no_such_port() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        assert ports(place) == {"grpc": 8033, "http": 8000}
        before = place.get(REVISION, "chat-1")
        older: Any = copy.deepcopy(before)
        (server,) = older["spec"]["template"]["spec"]["containers"]
        server["ports"] = [port for port in server["ports"] if port["name"] != "http"]
        place.store.merge(REVISION, NAMESPACE, "chat-1", {"spec": older["spec"]}, "helios-of-before")
        await place.until(lambda: ports(place) == {"grpc": 8033}, "the port stays")
        await place.passes(3)
        assert [obj["metadata"]["name"] for obj in place.store.list(REVISION)] == ["chat-1"]
        assert place.get(REVISION, "chat-1")["spec"]["template"] == older["spec"]["template"]


async def test_another_port_moves_the_service_and_no_pod() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.patch(service={"httpPort": 80})
        await place.until(lambda: ports(place) == {"grpc": 8033, "http": 80}, "it does not move")
        await place.passes(3)
        assert [obj["metadata"]["name"] for obj in place.store.list(REVISION)] == ["chat-1"]


async def test_without_http_new_pods_come_and_the_port_goes() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.patch(service={"httpPort": 0})
        await place.until(lambda: ports(place) == {"grpc": 8033}, "the port stays")
        await place.until(lambda: place.routed() == 2, "no new pods")
