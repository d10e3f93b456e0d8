"""Objects of others under a name that HELIOS derives: none of them is touched, and the clash is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    REVISION,
    SECRET,
    SERVICE,
    Kind,
    Object,
)

from tests.cluster.fake.objects import NAMESPACE, deployment, of
from tests.cluster.fake.scene import SOON, Place, scene

APP = {"matchLabels": {"app": "theirs"}}
POD = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
PORT = {"name": "web", "port": 80, "targetPort": 80}
THEIRS: dict[Kind, dict[str, Any]] = {
    SERVICE: {"spec": {"selector": {"app": "theirs"}, "ports": [PORT]}},
    NETWORK_POLICY: {"spec": {"podSelector": APP, "policyTypes": ["Ingress"]}},
    CONFIG_MAP: {"data": {"theirs": "1"}},
    SECRET: {"data": {"theirs": ""}},
    REVISION: {"spec": {"replicas": 0, "selector": APP, "template": POD}},
    BUDGET_V1: {"spec": {"selector": APP, "maxUnavailable": 1}},
    JOB: {"spec": {"template": POD}},
}
SERVES = True
"""The clash costs less than the service."""


@pytest.mark.parametrize(
    ("kind", "name", "serves"),
    [
        (SERVICE, "chat", not SERVES),
        (SERVICE, "chat-replicas", SERVES),
        (SERVICE, "chat-pods", SERVES),
        (NETWORK_POLICY, "chat", SERVES),
        (NETWORK_POLICY, "chat-profiling", SERVES),
        (SECRET, "chat-control", not SERVES),
        (CONFIG_MAP, "chat-1", not SERVES),
        (CONFIG_MAP, "chat-inline-prompts", SERVES),
        (REVISION, "chat-1", not SERVES),
        (BUDGET_V1, "chat", SERVES),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else str(value),
)
async def test_what_is_anothers_stays_as_it_is(kind: Kind, name: str, serves: bool) -> None:
    async with scene(operator=False) as place:
        theirs = place.create(of(kind, name, **copy.deepcopy(THEIRS[kind])))
        place.create(deployment(replicas=2))
        await place.start_operator()
        told = await place.named("Ready", f"{kind.name} {name}", "is not HELIOS's", "delete it")
        assert told["reason"] == "NameTaken"
        if serves:
            await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        said = [event for event in place.events() if f"{kind.name} {name}" in event]
        assert said
        assert len(said) == len(set(said)), said  # nothing is said twice
        await _asks_seldom(place, kind, name)
        assert _content(place.get(kind, name)) == _content(theirs)
        place.store.delete(DEPLOYMENT, NAMESPACE, "chat")
        await place.until(lambda: not place.store.list(SERVICE, selector="helios.dev/deployment=chat"))
        assert _content(place.get(kind, name)) == _content(theirs)


async def test_it_serves_once_the_name_is_free() -> None:
    async with scene() as place:
        place.create(of(SERVICE, "chat", **THEIRS[SERVICE]))
        place.create(deployment())
        await place.named("Ready", "Service chat")
        place.store.delete(SERVICE, NAMESPACE, "chat")
        await place.ready()
        assert place.routed() == 1


async def test_a_job_of_a_derived_name_is_named_and_left_alone() -> None:
    """The name follows from the models: it is learnt from a first run."""
    async with scene() as place:
        place.create(deployment())
        await place.until(lambda: _of_kind(place.store.list(JOB), "Timing"))
        (name,) = _of_kind(place.store.list(JOB), "Timing")
    async with scene(operator=False) as place:
        theirs = place.create(of(JOB, name, **copy.deepcopy(THEIRS[JOB])))
        place.create(deployment())
        await place.start_operator()
        await place.named("Profiled", f"Job {name}", "is not HELIOS's")
        await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        assert place.get(JOB, name)["metadata"]["uid"] == theirs["metadata"]["uid"]
        assert place.get(JOB, name)["spec"] == theirs["spec"]


@pytest.mark.parametrize("other", ["chat-pods", "chat-replicas", "chat-profiling"])
async def test_two_of_ours_whose_names_meet(other: str) -> None:
    """`chat-pods` has a client Service where `chat` has a headless one, `chat-profiling` a policy."""
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        before = _content_of_all(place, "chat")
        place.create(deployment(other))
        told = await place.named("Ready", "belongs to HeliosDeployment chat", "otherwise", name=other)
        assert told["reason"] == "NameTaken"
        await _asks_seldom(place, SERVICE, other)
        assert _content_of_all(place, "chat") == before
        assert (await place.ready())["active"]["revision"] == 1
        place.store.delete(DEPLOYMENT, NAMESPACE, other)
        await place.passes()
        assert _content_of_all(place, "chat") == before


async def test_an_heir_of_the_same_name_waits_until_the_first_is_cleared_away() -> None:
    async with scene(policy=SOON) as place:
        first = place.create(deployment())
        await place.ready()
        place.store.merge(
            SERVICE, NAMESPACE, "chat", {"metadata": {"finalizers": ["example.com/slow"]}}, "kubectl"
        )
        place.store.delete(DEPLOYMENT, NAMESPACE, "chat")
        second = place.create(deployment())
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        await place.named("Ready", "Service chat", "earlier HeliosDeployment chat")
        place.store.merge(SERVICE, NAMESPACE, "chat", {"metadata": {"finalizers": None}}, "kubectl")
        await place.ready()


async def _asks_seldom(place: Place, kind: Kind, name: str) -> None:
    """Less than once in a pass, though a pass may have two uses for it."""

    def asked() -> int:
        paths = (kind.path(NAMESPACE), kind.path(NAMESPACE, name))
        return sum(path in paths for _, path in place.door.writes)

    before = asked()
    await place.passes(8)
    assert asked() - before < 8


def _content(obj: Object) -> Object:
    """Without what the cluster's own controllers write."""
    theirs = ("managedFields", "resourceVersion")
    metadata = {k: v for k, v in obj["metadata"].items() if k not in theirs}
    return {k: v for k, v in obj.items() if k != "status"} | {"metadata": metadata}


def _content_of_all(place: Place, name: str) -> list[Object]:
    kinds = (SERVICE, NETWORK_POLICY, SECRET, CONFIG_MAP)
    found = [
        obj for kind in kinds for obj in place.store.list(kind, selector=f"helios.dev/deployment={name}")
    ]
    return [_content(obj) for obj in found]


def _of_kind(jobs: list[Object], kind: str) -> list[str]:
    return [
        job["metadata"]["name"]
        for job in jobs
        if job["metadata"]["labels"].get("helios.dev/job-kind") == kind
    ]
