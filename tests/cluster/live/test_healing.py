"""What is missing is named by a condition, and missed no longer when it appears."""

from __future__ import annotations

import base64
from pathlib import Path

from helios_operator.cluster.kinds import CONFIG_MAP, SECRET

from tests.cluster.live.scene import PROMPTS, Measured, Scene, condition, scene

GPU = "example.com/gpu"


async def test_what_a_first_run_lacks_is_named_one_after_another(place: Scene) -> None:
    """The hub's token, then the prompts and a model's directory."""
    shelf = place.runner.claims / f"shelf-{place.namespace}"
    shelf.mkdir()
    await place.claim(shelf.name)
    models = place.runner.claims / "models"
    obj = place.deployment(
        authSecret={"name": "hub", "key": "token"},
        profiling={"prompts": {"configMapRef": {"name": "texts", "key": "whales"}}, "maxParallelism": 2},
    )
    obj["spec"]["candidates"] = [
        {"name": "deep", "uri": "pvc://models/deep", "exitLayers": [2]},
        {"name": "late", "uri": f"pvc://{shelf.name}/late", "exitLayers": [2]},
    ]
    await place.start_operator()
    await place.create(obj)
    await named(place, 'secret "hub" not found')
    await place.make(SECRET, "hub", {"data": {"token": base64.b64encode(b"none").decode()}})
    await place.until(lambda s: s.get("active"), what="it does not serve")
    await named(place, "ConfigMap texts")
    await named(place, f"pvc://{shelf.name}/late")
    await place.make(CONFIG_MAP, "texts", {"data": {"whales": "\n".join(PROMPTS)}})
    await place.ready()
    (shelf / "late").symlink_to(models / "flat")
    await place.until(lambda s: condition(s, "Profiled")["status"] == "True", what="not found again")
    states = {c["name"]: c["state"] for c in (await place.status())["candidates"]}
    assert states == {"deep": "Profiled", "late": "Profiled"}


async def test_a_cache_and_a_key_that_pods_wait_for(place: Scene, measured: Measured) -> None:
    obj = place.deployment(
        modelCache={"pvcName": f"cache-{place.namespace}"}, authSecret={"name": "hub", "key": "token"}
    )
    await place.start_operator()
    await place.create(obj, measured)
    await named(place, f'persistentvolumeclaim "cache-{place.namespace}" not found', "Available")
    (place.runner.claims / f"cache-{place.namespace}").mkdir()
    await place.claim(f"cache-{place.namespace}")
    await named(place, 'secret "hub" not found', "Available")
    await place.make(SECRET, "hub", {"data": {"other": ""}})
    await named(place, "couldn't find key token", "Available")
    await place.admin.merge(SECRET, place.namespace, "hub", {"data": {"token": ""}})
    await place.ready()


async def test_no_node_has_the_accelerator(tmp_path: Path, claims: Path, measured: Measured) -> None:
    async with scene(tmp_path, claims) as place:
        await place.start_operator()
        await place.create(place.deployment(resources={GPU: 1}), measured.on(GPU))
        await named(place, f"Insufficient {GPU}")
        await place.runner.set_capacity({GPU: "2"})
        await place.ready()


async def named(place: Scene, what: str, kind: str = "Profiled") -> None:
    """The condition is not True, and says so."""
    await place.until(
        lambda s: condition(s, kind)["status"] == "False" and what in condition(s, kind)["message"],
        what=f"{kind} does not name {what}",
        seconds=120,
    )
