"""An API server that is away, refuses, forgets or falls silent: streams go on, and what was asked is done."""

from __future__ import annotations

import asyncio

from helios_operator.cluster.kinds import DEPLOYMENT, REVISION

from tests.cluster.live.scene import Measured, Scene
from tests.cluster.live.traffic import traffic

OUTAGE_SECONDS = 60
NOTICED_SECONDS = 120
"""A silent watch is given up after 70 s without an event or a bookmark; then all is listed again."""
PINNED = {"policy": "Pinned", "candidate": "deep"}


async def test_an_outage_in_the_middle_of_a_rollout(place: Scene, measured: Measured) -> None:
    """Its successor starts meanwhile, and another change is asked for: both are done when it is back."""
    await place.start_operator()
    await place.create(place.deployment(selection=PINNED), measured)
    await place.ready()
    async with traffic(place):
        await place.patch("chat", {"selection": {"candidate": "flat"}})
        async with asyncio.timeout(60):
            while len(await place.objects(REVISION, "chat")) < 2:
                await asyncio.sleep(0.1)
        place.proxy.down = True
        await place.patch("chat", {"limits": {"maxBatchSize": 7}})
        await asyncio.sleep(OUTAGE_SECONDS)
        assert await place.routed() == 1  # nobody moved the traffic
        place.proxy.down = False
        await place.until(lambda s: s["active"]["candidate"] == "flat", what="no switch after the outage")
        await place.until(lambda s: s["active"]["maxBatchSize"] == 7, what="no limits after the outage")
        await place.ready()
    await place.alone()
    assert place.operator is not None
    assert place.operator.exit_code is None  # it went through this in one life


async def test_a_rude_api_server_harms_nobody(place: Scene, measured: Measured) -> None:
    """Conflicts, then every watch too old, then every watch silent, then an end that no watch tells of."""
    await place.start_operator()
    await place.create(place.deployment(selection=PINNED), measured)
    await place.ready()
    async with traffic(place):
        left = [3]

        def conflict(method: str, path: str) -> tuple[int, dict[str, object]] | None:
            if method != "PATCH" or not left[0]:
                return None
            left[0] -= 1
            return 409, {"kind": "Status", "code": 409, "reason": "Conflict", "message": "changed meanwhile"}

        place.proxy.answer = conflict
        await _change_rows(place, 7, "not after conflicts")
        assert left == [0]
        place.proxy.expire_watches()
        await _change_rows(place, 6, "not after expired watches")
    place.proxy.silence_watches()  # without traffic, so that no write of a status tells of the change
    await _change_rows(place, 5, "the silence was not noticed")
    assert (await place.page("/healthz"))[0] == 200
    place.proxy.silence_watches()
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    place.proxy.expire_watches()
    async with asyncio.timeout(NOTICED_SECONDS):
        while 'name="chat"' in (await place.page("/metrics"))[1]:
            await asyncio.sleep(0.5)
    await place.until_gone()
    assert place.operator is not None
    assert place.operator.exit_code is None


async def test_answers_that_are_lost_make_nothing_twice(place: Scene) -> None:
    """Each first Job, Deployment and Secret is made, and the operator is told that it took too long."""
    lost: set[str] = set()

    def lose(method: str, path: str) -> bool:
        kind = path.rpartition("/")[2]
        if method != "POST" or kind in lost or kind not in ("jobs", "deployments", "secrets"):
            return False
        lost.add(kind)
        return True

    place.proxy.loses = lose
    await place.start_operator()
    await place.create(place.deployment())
    await place.until(lambda s: s.get("active"), what="it does not serve")
    by_itself = {path.rpartition("/")[2] for method, path in place.proxy.unanswered if method == "POST"}
    assert lost | by_itself >= {"jobs", "deployments", "secrets"}, (lost, place.proxy.writes)
    census = await place.census()
    assert census["Deployment"] == ["chat-1"]
    assert len(census["Pod"]) == 1
    assert len([name for name in census["Job"] if name.startswith("i-")]) == 1


async def _change_rows(place: Scene, rows: int, what: str) -> None:
    await place.patch("chat", {"limits": {"maxBatchSize": rows}})
    await place.until(lambda s: s["active"]["maxBatchSize"] == rows, seconds=NOTICED_SECONDS, what=what)
