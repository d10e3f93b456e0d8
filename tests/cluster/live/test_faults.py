"""Whatever ends, fails or lies in between: it converges to the right state, with no duplicate and no lost
stream."""

from __future__ import annotations

import asyncio
import re

from helios_operator.cluster.kinds import DEPLOYMENT, JOB, POD, PROFILE

from tests.cluster.live.scene import Measured, Scene
from tests.cluster.live.traffic import traffic

_GENERATED = re.compile(r"/events(/|$)")


async def test_the_operator_may_be_killed_after_any_write(behind_proxy: Scene, measured: Measured) -> None:
    """From the first object to a finished switch: ended after each write that it has not survived yet."""
    place, proxy = behind_proxy, behind_proxy.proxy
    assert proxy is not None
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
    proxy.after_write = kill
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
        nurse.cancel()
        proxy.after_write = lambda method, path: None
    census = await place.census()
    assert len(census["Deployment"]) == len(census["Pod"]) == 1, census
    writes = {f"{method} {path.rpartition('/')[2]}" for method, path in survived}
    assert {"POST deployments", "PATCH chat", "PATCH status", "DELETE chat-1"} <= writes, writes


async def test_an_absent_or_rude_api_server_harms_nobody(behind_proxy: Scene, measured: Measured) -> None:
    """Down for a while, then conflicts, then every watch too old: streams go on, and the change is made."""
    place, proxy = behind_proxy, behind_proxy.proxy
    assert proxy is not None
    await place.start_operator()
    await place.create(place.deployment(selection={"policy": "Pinned", "candidate": "deep"}), measured)
    await place.ready()
    async with traffic(place):
        proxy.down = True
        await place.patch("chat", {"limits": {"maxBatchSize": 7}})
        await asyncio.sleep(12)
        proxy.down = False
        await place.until(lambda s: s["active"]["maxBatchSize"] == 7, what="not after the outage")
        left = [3]

        def conflict(method: str, path: str) -> tuple[int, dict[str, object]] | None:
            if method != "PATCH" or not left[0]:
                return None
            left[0] -= 1
            return 409, {"kind": "Status", "code": 409, "reason": "Conflict", "message": "changed meanwhile"}

        proxy.answer = conflict
        await place.patch("chat", {"limits": {"maxBatchSize": 6}})
        await place.until(lambda s: s["active"]["maxBatchSize"] == 6, what="not after conflicts")
        assert left == [0]
        proxy.expire_watches()
        await place.patch("chat", {"limits": {"maxBatchSize": 5}})
        await place.until(lambda s: s["active"]["maxBatchSize"] == 5, what="not after expired watches")
    assert place.operator is not None
    assert place.operator.exit_code is None  # it went through all of this in one life


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


async def test_one_that_is_deleted_in_the_middle_leaves_nothing(place: Scene) -> None:
    await place.start_operator()
    await place.create(place.deployment())
    async with asyncio.timeout(200):
        while not await place.objects(JOB, "chat"):
            await asyncio.sleep(0.1)
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    async with asyncio.timeout(200):
        while [obj for kind in (JOB, POD) for obj in await place.objects(kind)]:
            await asyncio.sleep(0.5)


async def _complete(place: Scene) -> int:
    rows = await place.objects(PROFILE)
    return sum(row.get("status", {}).get("phase") == "Complete" for row in rows)
