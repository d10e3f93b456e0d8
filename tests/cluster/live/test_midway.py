"""A spec that changes while a change is under way, and objects that are deleted in every phase."""

from __future__ import annotations

import asyncio

from helios_operator.cluster.kinds import DEPLOYMENT, JOB, POD, REVISION

from tests.cluster.live.scene import Measured, Scene
from tests.cluster.live.traffic import traffic


def pinned(candidate: str) -> dict[str, object]:
    return {"selection": {"policy": "Pinned", "candidate": candidate}}


async def test_a_rollout_is_given_up_when_the_spec_goes_back(place: Scene, measured: Measured) -> None:
    """What was starting never serves; what serves is left alone."""
    await place.start_operator()
    await place.create(place.deployment(**pinned("deep")), measured)
    await place.ready()
    before = await _uids(place)
    async with traffic(place) as answered:
        await place.patch("chat", pinned("flat"))
        await _second_revision(place)
        await place.patch("chat", pinned("deep"))
        await place.alone()
        await place.ready()
        assert set(answered) == {"deep"}
    assert await _uids(place) == before


async def test_a_successor_that_is_no_candidate_any_more_gives_way(place: Scene, measured: Measured) -> None:
    """It is taken from the spec, and the template changes: what serves goes on serving, in new pods."""
    await place.start_operator()
    await place.create(place.deployment(**pinned("deep")), measured)
    obj = await place.ready()
    before = await _uids(place)
    template = obj["spec"]["template"]
    template["metadata"] = {"labels": {"team": "whales"}}
    async with traffic(place) as answered:
        await place.patch("chat", pinned("flat"))
        await _second_revision(place)
        await place.patch(
            "chat", {**pinned("deep"), "candidates": obj["spec"]["candidates"][:1], "template": template}
        )
        await _relabelled(place)
        await place.ready()
        assert set(answered) == {"deep"}
    assert not await _uids(place) & before


async def test_a_template_that_changes_while_a_successor_starts(place: Scene, measured: Measured) -> None:
    await place.start_operator()
    await place.create(place.deployment(**pinned("deep")), measured)
    template = (await place.ready())["spec"]["template"]
    template["metadata"] = {"labels": {"team": "whales"}}
    async with traffic(place):
        await place.patch("chat", pinned("flat"))
        await _second_revision(place)
        await place.patch("chat", {"template": template})
        await place.until(lambda s: s["active"]["candidate"] == "flat", what="no switch")
        await _relabelled(place)
        await place.ready()
    assert (await place.status())["active"]["candidate"] == "flat"


async def test_a_candidate_that_is_removed_serves_until_its_successor_does(
    place: Scene, measured: Measured
) -> None:
    await place.start_operator()
    obj = place.deployment()
    await place.create(obj, measured)
    served = (await place.ready())["status"]["active"]["candidate"]
    async with traffic(place) as answered:
        others = [c for c in obj["spec"]["candidates"] if c["name"] != served]
        await place.patch("chat", {"candidates": others})
        await place.until(lambda s: s["active"]["candidate"] != served, what="it was not replaced")
        await place.ready()
        await place.alone()
        answered.clear()
    assert set(answered) == {others[0]["name"]}


async def test_one_that_is_deleted_leaves_nothing_in_any_phase(place: Scene, measured: Measured) -> None:
    await place.start_operator()
    for phase in (_profiling, _starting, _surging, _draining):
        await phase(place, measured)
        await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
        await place.until_gone()


async def test_one_that_is_made_again_at_once_begins_anew(place: Scene, measured: Measured) -> None:
    """While what belonged to the first of that name is still being cleared away: serving, then profiling."""
    await place.start_operator()
    await place.create(place.deployment(), measured)
    first = await place.ready()
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    await _profiling(place, measured)
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    last = await place.create(place.deployment(), measured)
    await place.ready()
    await place.alone()
    uids = {first["metadata"]["uid"], last["metadata"]["uid"]}
    assert len(uids) == 2
    for kind in (REVISION, POD):
        (found,) = await place.objects(kind, "chat")
        assert found["metadata"]["creationTimestamp"] >= last["metadata"]["creationTimestamp"]


async def _profiling(place: Scene, _: Measured) -> None:
    await place.create(place.deployment())
    async with asyncio.timeout(200):
        while not await place.objects(JOB, "chat"):
            await asyncio.sleep(0.1)


async def _starting(place: Scene, measured: Measured) -> None:
    await place.create(place.deployment(), measured)
    async with asyncio.timeout(60):
        while not await place.objects(POD, "chat"):
            await asyncio.sleep(0.1)


async def _surging(place: Scene, measured: Measured) -> None:
    await place.create(place.deployment(**pinned("deep")), measured)
    await place.ready()
    await place.patch("chat", pinned("flat"))
    await _second_revision(place)


async def _draining(place: Scene, measured: Measured) -> None:
    drain = {"preStopSeconds": 30, "timeoutSeconds": 60}
    rollout = {"scaleDownDelaySeconds": 0, "drain": drain}
    await place.create(place.deployment(**pinned("deep"), rollout=rollout), measured)
    await place.ready()
    await place.patch("chat", pinned("flat"))
    await place.until(lambda s: s["rollout"]["phase"] == "Draining", what="the old one does not drain")


async def _second_revision(place: Scene) -> None:
    async with asyncio.timeout(60):
        while len(await place.objects(REVISION, "chat")) < 2:
            await asyncio.sleep(0.1)


async def _relabelled(place: Scene) -> None:
    """All that serves carries the new label, and nothing else is left."""
    async with asyncio.timeout(200):
        while [p["metadata"]["labels"].get("team") for p in await place.objects(POD, "chat")] != ["whales"]:
            await asyncio.sleep(0.25)


async def _uids(place: Scene) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await place.objects(POD, "chat")}
