"""The server of dictionaries does what Kubernetes documents, where the operator's tests rest on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import CONFIG_MAP, DEPLOYMENT, SERVICE, Object
from helios_operator.errors import ClusterError, ConflictError
from kubernetes.aio.client import Configuration

from tests.cluster.fake.controllers import Controllers
from tests.cluster.fake.http import Door
from tests.cluster.fake.objects import NAMESPACE, deployment, of
from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.scene import KINDS
from tests.cluster.fake.store import Store


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    door = Door(store, KINDS)
    made = Client(Configuration(host=await door.open()))
    yield made
    await made.close()
    await door.close()


def document(**data: str) -> Object:
    return of(CONFIG_MAP, "a", data=data)


def test_a_field_of_another_manager_conflicts_unless_it_is_forced(store: Store) -> None:
    store.apply(CONFIG_MAP, document(x="1", y="1"), "one")
    with pytest.raises(Refusal, match=r'conflict with "one"') as refused:
        store.apply(CONFIG_MAP, document(x="2"), "two")
    assert refused.value.code == 409
    store.apply(CONFIG_MAP, document(x="1"), "two")  # the same value is shared
    answer, _ = store.apply(CONFIG_MAP, document(x="2"), "two", force=True)
    assert answer["data"] == {"x": "2", "y": "1"}
    answer, _ = store.apply(CONFIG_MAP, document(), "two", force=True)
    assert answer["data"] == {"y": "1"}  # what nobody applies any more goes; what others own stays


def test_what_changes_nothing_has_no_version(store: Store) -> None:
    first, made = store.apply(CONFIG_MAP, document(x="1"), "one")
    again, made_again = store.apply(CONFIG_MAP, document(x="1"), "one")
    assert (made, made_again) == (True, False)
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


def test_lists_that_are_maps_keep_what_others_added(store: Store) -> None:
    def service(port: int) -> Object:
        return of(
            SERVICE, "s", spec={"ports": [{"port": port, "protocol": "TCP"}], "selector": {"a": str(port)}}
        )

    store.apply(SERVICE, service(1), "one")
    answer, _ = store.apply(SERVICE, service(2), "two", force=True)
    assert [port["port"] for port in answer["spec"]["ports"]] == [1, 2]
    assert answer["spec"]["selector"] == {"a": "2"}  # replaced as a whole


async def test_the_client_makes_what_is_missing_and_no_more(store: Store, client: Client) -> None:
    made = store.create(CONFIG_MAP, document(x="1"), "somebody")
    with pytest.raises(ConflictError):
        await client.apply(CONFIG_MAP, document(x="2"), force=False)
    with pytest.raises(ClusterError, match="resourceVersion should not be set"):
        await client.apply(CONFIG_MAP, of(CONFIG_MAP, "b", metadata={"resourceVersion": "1"}))
    assert store.get(CONFIG_MAP, NAMESPACE, "a")["data"] == {"x": "1"}
    other = document(x="3") | {"metadata": document()["metadata"] | {"uid": "another"}}
    with pytest.raises(ClusterError, match="immutable"):
        await client.apply(CONFIG_MAP, other)
    await client.delete(CONFIG_MAP, NAMESPACE, "a", "another")
    assert store.find(CONFIG_MAP, NAMESPACE, "a")
    await client.delete(CONFIG_MAP, NAMESPACE, "a", made["metadata"]["uid"])
    assert store.find(CONFIG_MAP, NAMESPACE, "a") is None
    with pytest.raises(ConflictError, match="no existing object was found"):
        await client.apply(CONFIG_MAP, other)


async def test_lists_come_in_pages_of_one_moment(store: Store, client: Client) -> None:
    for number in range(5):
        store.create(CONFIG_MAP, of(CONFIG_MAP, f"c{number}"))
    names = []
    async for page in client.pages(CONFIG_MAP, NAMESPACE, size=2):
        names += [obj["metadata"]["name"] for obj in page]
        store.create(CONFIG_MAP, of(CONFIG_MAP, f"later{len(names)}"))
    assert names == [f"c{number}" for number in range(5)]
    found = await client.list(CONFIG_MAP, NAMESPACE, fields="metadata.name=c3")
    assert [obj["metadata"]["name"] for obj in found] == ["c3"]


def test_a_status_is_written_apart(store: Store) -> None:
    made = store.create(DEPLOYMENT, deployment() | {"status": {"phase": "Serving"}})
    assert "status" not in made
    status = {"metadata": made["metadata"], "status": {"phase": "Serving"}, "spec": {}}
    told = store.update(DEPLOYMENT, status, subresource="status")
    assert told["spec"] == made["spec"]
    assert told["metadata"]["generation"] == 1
    changed = store.merge(DEPLOYMENT, NAMESPACE, "chat", {"spec": {"replicas": 2}, "status": {"phase": "x"}})
    assert (changed["metadata"]["generation"], changed["status"]) == (2, {"phase": "Serving"})
    with pytest.raises(Refusal, match="has been modified"):
        store.update(DEPLOYMENT, made)


def test_what_is_owned_goes_with_its_owner(store: Store) -> None:
    owner = store.create(CONFIG_MAP, of(CONFIG_MAP, "owner"))
    other = store.create(CONFIG_MAP, of(CONFIG_MAP, "other"))

    def owned(name: str, *owners: Object) -> None:
        references = [{"kind": "ConfigMap", "name": "o", "uid": o["metadata"]["uid"]} for o in owners]
        store.create(CONFIG_MAP, of(CONFIG_MAP, name, metadata={"ownerReferences": references}))

    owned("one", owner)
    owned("both", owner, other)
    store.delete(CONFIG_MAP, NAMESPACE, "owner")
    assert [obj["metadata"]["name"] for obj in store.list(CONFIG_MAP)] == ["both", "other"]


def test_what_is_made_for_an_owner_that_is_gone_goes_too(store: Store) -> None:
    owner = store.create(CONFIG_MAP, of(CONFIG_MAP, "owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    store.delete(CONFIG_MAP, NAMESPACE, "owner")
    store.create(CONFIG_MAP, of(CONFIG_MAP, "late", metadata={"ownerReferences": [reference]}))
    store.create(CONFIG_MAP, of(CONFIG_MAP, "nobodys"))
    Controllers(store).step()
    assert [obj["metadata"]["name"] for obj in store.list(CONFIG_MAP)] == ["nobodys"]


def test_a_finalizer_holds_an_object_until_it_is_gone(store: Store) -> None:
    store.create(CONFIG_MAP, of(CONFIG_MAP, "a", metadata={"finalizers": ["example.com/x"]}))
    store.delete(CONFIG_MAP, NAMESPACE, "a")
    assert store.get(CONFIG_MAP, NAMESPACE, "a")["metadata"]["deletionTimestamp"]
    store.merge(CONFIG_MAP, NAMESPACE, "a", {"metadata": {"finalizers": None}})
    assert store.find(CONFIG_MAP, NAMESPACE, "a") is None
