"""The whole loop on a real API server: an object is applied, Jobs measure, what was chosen serves."""

from __future__ import annotations

from tests.cluster.live.scene import Scene, condition


async def test_from_nothing_to_ready(place: Scene) -> None:
    await place.start_operator()
    await place.create(place.deployment())
    await place.until(lambda s: s.get("active"), what="never served")
    obj = await place.ready()
    status = obj["status"]
    census = await place.census()
    assert len(census["HeliosProfile"]) == 4, census
    assert condition(status, "Profiled")["status"] == "True"
    assert status["endpoint"] == f"chat.{place.namespace}.svc:8033"
