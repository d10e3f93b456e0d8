"""The loop on a real API server: what is measured once serves, changes reach the pods, streams survive."""

from __future__ import annotations

import asyncio
from typing import Any

from helios_operator.cluster.kinds import DEPLOYMENT, SERVICE

from tests.cluster.live.scene import Measured, Scene, condition
from tests.cluster.live.traffic import traffic


async def test_a_switch_by_surge_loses_no_stream(place: Scene, measured: Measured) -> None:
    await place.start_operator()
    await place.create(place.deployment(), measured)
    served = (await place.ready())["status"]["active"]["candidate"]
    other = {"deep": "flat", "flat": "deep"}[served]
    async with traffic(place) as answered:
        await place.switch("chat", other)
        status = (await place.until(lambda s: s["active"]["candidate"] == other, what="no switch"))["status"]
        assert status["rollout"]["strategy"] == "Surge"
        await place.ready()
        await place.alone()
        answered.clear()
    assert set(answered) == {other}
    address, replicas = [
        await place.admin.get(SERVICE, place.namespace, name) or {} for name in ("chat", "chat-replicas")
    ]
    assert replicas["spec"]["selector"] == address["spec"]["selector"]
    assert (replicas["spec"]["clusterIP"], replicas["spec"]["ports"][0]["port"]) == ("None", 8033)
    assert (await place.status())["active"]["maxRequestTokens"] > 0


async def test_what_belongs_to_a_deployment_goes_with_it(place: Scene, measured: Measured) -> None:
    """And a row that another one uses stays."""
    await place.start_operator()
    await place.create(place.deployment("other"), measured)
    await place.ready("other")
    await place.create(place.deployment("chat"))
    await place.until(lambda s: s.get("active"), "chat", what="the second never served")
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    async with asyncio.timeout(200):
        while await _owned(place, "chat"):
            await asyncio.sleep(0.5)
    assert condition(await place.status("other"), "Available")["status"] == "True"
    assert len((await place.census("other"))["HeliosProfile"]) >= len(measured.rows)
    await place.admin.delete(DEPLOYMENT, place.namespace, "other")
    async with asyncio.timeout(200):
        while (await _owned(place, "other")) or (await place.census("other"))["HeliosProfile"]:
            await asyncio.sleep(0.5)


async def _owned(place: Scene, name: str) -> list[Any]:
    census = await place.census(name)
    return [name for kind in ("Deployment", "Job", "Service", "Pod") for name in census[kind]]
