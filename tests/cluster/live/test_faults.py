"""Whoever is killed, and whenever: it converges to the right state, with no duplicate and no lost stream."""

from __future__ import annotations

import asyncio
import re

from helios_operator.cluster.kinds import PROFILE

from tests.cluster.live.scene import Measured, Scene
from tests.cluster.live.traffic import traffic

_GENERATED = re.compile(r"/events(/|$)")


async def test_the_operator_may_be_killed_after_any_write(place: Scene, measured: Measured) -> None:
    """From the first object to a finished switch: ended after each write that it has not survived yet."""
    survived: set[tuple[str, str]] = set()
    died = asyncio.Event()

    def kill(method: str, path: str) -> None:
        write = (method, path)
        if write in survived or _GENERATED.search(path) or place.operator is None:
            return
        survived.add(write)
        place.operator.kill()
        died.set()

    async def keep_alive() -> None:
        while True:
            await died.wait()
            died.clear()
            await place.kill_operator()
            await place.start_operator()

    await place.start_operator()
    place.proxy.after_write = kill
    nurse = asyncio.create_task(keep_alive())
    try:
        await place.create(place.deployment(), measured)
        served = (await place.ready())["status"]["active"]["candidate"]
        other = {"deep": "flat", "flat": "deep"}[served]
        async with traffic(place):
            await place.switch("chat", other)
            await place.until(lambda s: s["active"]["candidate"] == other, what="no switch", seconds=500)
            await place.ready()
    finally:
        place.proxy.after_write = lambda method, path: None
        nurse.cancel()
        await asyncio.gather(nurse, return_exceptions=True)
    await place.alone()
    writes = {f"{method} {path.rpartition('/')[2]}" for method, path in survived}
    assert {"POST deployments", "PATCH chat", "PATCH status", "DELETE chat-1"} <= writes, writes


async def test_a_pod_or_a_job_that_dies_is_replaced(place: Scene, measured: Measured) -> None:
    await place.start_operator()
    await place.create(place.deployment(selection={"policy": "Pinned", "candidate": "deep"}), measured)
    before = await place.ready()
    (running,) = place.runner.serving()
    place.runner.kill(running.name)
    await place.until(lambda s: s["readyReplicas"] == 0, what="the end was not seen")
    after = await place.ready()
    assert after["status"]["active"]["revision"] == before["status"]["active"]["revision"]
    async with traffic(place, callers=1):
        pass
    prompts = ["Another text, so that quality is measured again.", "And one more."]
    await place.patch("chat", {"profiling": {"prompts": {"inline": prompts}}})
    async with asyncio.timeout(300):
        while not (jobs := [r for r in place.runner.pods.values() if r.name.startswith("q-") and r.process]):
            await asyncio.sleep(0.1)
    place.runner.kill(jobs[0].name)
    async with asyncio.timeout(300):
        while await _complete(place) < len(measured.rows) + 2:
            await asyncio.sleep(0.5)
    await place.ready()
    await place.patch("chat", {"profiling": {"historyLimit": 1}})
    async with asyncio.timeout(60):
        while await _complete(place) > len(measured.rows):  # the older ones go
            await asyncio.sleep(0.5)


async def _complete(place: Scene) -> int:
    rows = await place.objects(PROFILE)
    return sum(row.get("status", {}).get("phase") == "Complete" for row in rows)
