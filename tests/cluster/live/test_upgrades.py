"""What restarts a serving pod: another model does, once; another operator, limits and heads never do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from helios_operator.cluster.kinds import CONFIG_MAP, NETWORK_POLICY, Object
from helios_operator.cluster.surroundings import budget_kind

from tests.checkpoints import make_checkpoint
from tests.cluster.live.scene import Measured, Scene
from tests.cluster.live.traffic import traffic
from tests.engine.bundles import random_bundle

PINNED = {"policy": "Pinned", "candidate": "deep"}
NEWER = ("--server-image", "helios-server:newer", "--image-pull-policy", "Always", "--operator-name", "other")


async def test_a_newer_operator_restarts_no_pod(place: Scene, measured: Measured) -> None:
    """With another image, another pull policy, other labels; then one that wants no policies. Somebody's own
    budget of the same name stays."""
    budget = await budget_kind(place.admin)
    selector = {"selector": {"matchLabels": {"app": "other"}}, "maxUnavailable": 1}
    await place.make(budget, "chat", {"spec": selector})
    await place.start_operator()
    await place.create(place.deployment(selection=PINNED), measured)
    await place.ready()
    before = await place.restarts()
    async with traffic(place):
        await place.kill_operator()
        await place.start_operator(*NEWER, "--client-namespace", place.namespace)
        await _change_rows(place, 7)
        policy = await place.admin.get(NETWORK_POLICY, place.namespace, "chat")
        peers = json.dumps((policy or {})["spec"]["ingress"])
        assert '"other"' in peers
        assert place.namespace in peers
        await place.kill_operator()
        await place.start_operator(*NEWER, "--no-network-policies")
        await _change_rows(place, 6)
        assert await place.objects(NETWORK_POLICY) == []
        assert await place.restarts() == before
        await place.kill_operator()
        await place.start_operator()
        await _change_rows(place, 5)
    assert await place.restarts() == before
    assert set(before.values()) == {0}
    assert await place.objects(budget)
    rows = (await place.census())["HeliosProfile"]
    assert len(rows) == len(measured.rows)  # nothing was measured again


async def test_limits_and_heads_restart_no_pod(place: Scene, measured: Measured, claims: Path) -> None:
    """Shallower, deeper, other heads, told to the pod that runs."""
    models = claims / "models"
    heads = random_bundle(models / "heads", models / "deep", (2,), seed=2)
    await place.start_operator()
    await place.create(place.deployment(selection=PINNED), measured)
    obj = await place.ready()
    before = await place.restarts()
    async with traffic(place):
        for layers in (2, 4, 2):
            await place.patch("chat", {"limits": {"layerBudget": {"min": layers, "max": layers}}})
            await place.until(
                lambda s, layers=layers: s["active"]["layerBudget"] == layers, what="not that deep"
            )
        deep, *others = obj["spec"]["candidates"]
        await place.patch("chat", {"candidates": [deep | {"exits": "pvc://models/heads"}, *others]})
        async with asyncio.timeout(300):
            while (await _limits(place)).get("exitsDigest") != heads.digest:
                await asyncio.sleep(0.5)
        await place.until_told("SwapHeads to deep")
        await place.ready()
    assert await place.restarts() == before


async def test_another_model_rolls_once(place: Scene, measured: Measured, claims: Path) -> None:
    """Under the name of the one that serves."""
    make_checkpoint(claims / "models" / "newer", layers=4, seed=3)
    await place.start_operator()
    await place.create(place.deployment(selection=PINNED), measured)
    obj = await place.ready()
    before = await place.restarts()
    place.proxy.writes.clear()
    async with traffic(place):
        deep, *others = obj["spec"]["candidates"]
        await place.patch("chat", {"candidates": [deep | {"uri": "pvc://models/newer"}, *others]})
        await place.until(lambda s: s["active"]["revision"] == 2, what="no new revision")
        await place.ready()
    census = await place.alone()
    assert census["Deployment"] == ["chat-2"], census
    assert not (await place.restarts()).keys() & before.keys()
    made = [path for method, path in place.proxy.writes if method == "POST" and path.endswith("/deployments")]
    assert len(made) == 1
    assert (await _limits(place, "chat-2"))["modelUri"] == "pvc://models/newer"


async def _change_rows(place: Scene, rows: int) -> None:
    await place.patch("chat", {"limits": {"maxBatchSize": rows}})
    await place.until(
        lambda s: s["active"]["maxBatchSize"] == rows and "target" not in s, what="no new batch"
    )


async def _limits(place: Scene, name: str = "chat-1") -> Object:
    found = await place.admin.get(CONFIG_MAP, place.namespace, name)
    return dict(json.loads((found or {})["data"]["limits.json"]))
