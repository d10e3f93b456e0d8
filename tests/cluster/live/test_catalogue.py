"""HeliosModels on a real API server: what the operator says of them, with the rights of the chart; once."""

from __future__ import annotations

import asyncio

from helios_operator.cluster.kinds import MODEL, PROFILE, Object

from tests.cluster.live.scene import Measured, Scene, condition

LABELS = {"size": "tiny"}


async def test_entries_say_what_was_found_of_them(place: Scene, measured: Measured) -> None:
    for name in ("deep", "flat", "gone"):
        metadata = {"name": name, "namespace": place.namespace, "labels": LABELS}
        spec = {"uri": f"pvc://models/{name}", "exitLayers": [2]}
        about = {"apiVersion": MODEL.api_version, "kind": MODEL.name, "metadata": metadata}
        await place.admin.create(MODEL, about | {"spec": spec})
    await place.start_operator()
    obj = place.deployment(candidateSelector={"matchLabels": LABELS})
    del obj["spec"]["candidates"]
    await place.create(obj, measured)
    await place.ready()
    rows = {row["metadata"]["name"]: row for row in await place.objects(PROFILE)}
    for name in ("deep", "flat"):
        status = (await told(place, name, "RevisionFound", "correctedBy"))["status"]
        resolved = condition(status, "Resolved")
        assert resolved["status"] == "True"
        corrected = rows[status["correctedBy"]]["spec"]["quality"]["candidate"]
        assert corrected["uri"] == f"pvc://models/{name}"
        assert corrected["revision"] == resolved["message"]
    gone = condition((await told(place, "gone", "RevisionNotFound"))["status"], "Resolved")
    assert gone["status"] == "False"
    assert "pvc://models/gone" in gone["message"]
    before = await versions(place)
    await asyncio.sleep(8)  # passes come every second
    assert await versions(place) == before


async def test_a_long_list_comes_in_pages(place: Scene) -> None:
    names = [f"m{number}" for number in range(5)]
    for name in names:
        metadata = {"name": name, "namespace": place.namespace, "labels": LABELS if name != "m2" else {}}
        about = {"apiVersion": MODEL.api_version, "kind": MODEL.name, "metadata": metadata}
        await place.admin.create(MODEL, about | {"spec": {"uri": f"pvc://models/{name}"}})

    async def pages(selector: str = "") -> list[list[str]]:
        found = place.admin.pages(MODEL, place.namespace, selector, size=2)
        return [[obj["metadata"]["name"] for obj in page] async for page in found]

    assert await pages() == [["m0", "m1"], ["m2", "m3"], ["m4"]]
    labelled = await pages("size=tiny")
    assert max(map(len, labelled)) == 2
    assert [name for page in labelled for name in page] == ["m0", "m1", "m3", "m4"]


async def told(place: Scene, name: str, reason: str, *fields: str) -> Object:
    """The entry, once it is Resolved or not for that reason, and its status has the fields."""
    status: Object = {}
    try:
        async with asyncio.timeout(120):
            while True:
                obj = await place.admin.get(MODEL, place.namespace, name) or {}
                status = obj.get("status", {})
                if condition(status, "Resolved").get("reason") == reason and set(fields) <= status.keys():
                    return obj
                await asyncio.sleep(0.25)
    except TimeoutError:
        raise AssertionError(f"{name} does not say {(reason, *fields)}: {status}") from None


async def versions(place: Scene) -> dict[str, str]:
    found = await place.objects(MODEL)
    return {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in found}
