"""Accelerators, missing things and wrong objects: what cannot be done is said, and heals when it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_operator.cluster.kinds import JOB, Object
from helios_operator.decide.snapshot import JobKind
from helios_operator.errors import ClusterError
from helios_operator.render.job import job_spec

from tests.cluster.live.scene import Measured, Scene, condition, scene
from tests.cluster.live.traffic import traffic

GPU = "example.com/gpu"


@pytest.mark.parametrize(("cards", "way"), [("1", "InPlace"), ("2", "Surge")])
async def test_auto_surges_only_where_a_second_pod_fits(
    tmp_path: Path, claims: Path, measured: Measured, cards: str, way: str
) -> None:
    async with scene(tmp_path, claims, {GPU: cards}) as place:
        await place.start_operator()
        await place.create(place.deployment(resources={GPU: 1}), measured.on(GPU))
        served = (await place.ready())["status"]["active"]["candidate"]
        other = {"deep": "flat", "flat": "deep"}[served]
        async with traffic(place):
            await place.switch("chat", other)
            obj = await place.until(lambda s: s["active"]["candidate"] == other, what="no switch")
            await place.ready()
        rollout = obj["status"]["rollout"]
        assert rollout["strategy"] == way
        assert f"Auto chose {way}" in rollout["message"] or any(
            f"Auto chose {way}" in event["message"] for event in await place.events()
        )


async def test_the_only_accelerator_measures_first_and_then_serves(tmp_path: Path, claims: Path) -> None:
    """From nothing to Ready. Never do a pod and a Job want the same one."""
    async with scene(tmp_path, claims, {GPU: "1"}) as place:
        await place.start_operator()
        await place.create(place.deployment(resources={GPU: 1}))
        said = await place.until(lambda s: "are timed first" in str(s), what="it does not say why it waits")
        assert condition(said["status"], "Available")["status"] == "False"
        status = (await place.ready())["status"]
        assert status["active"]["candidate"] in ("deep", "flat")
        asked = {job_spec(job).kind: _limits(job) for job in await place.objects(JOB)}
        assert GPU not in asked[JobKind.INSPECT] | asked[JobKind.QUALITY]
        assert GPU in asked[JobKind.TIMING]


def _limits(job: Object) -> dict[str, str]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container.get("resources", {}).get("limits", {}))  # the API server drops what is empty


async def test_surge_waits_for_an_accelerator_and_says_so(
    tmp_path: Path, claims: Path, measured: Measured
) -> None:
    async with scene(tmp_path, claims, {GPU: "1"}) as place:
        await place.start_operator()
        rollout = {"strategy": "Surge", "scaleDownDelaySeconds": 0, "drain": {"preStopSeconds": 0}}
        await place.create(place.deployment(resources={GPU: 1}, rollout=rollout), measured.on(GPU))
        await place.until(lambda s: s.get("active"), what="never served")
        served = (await place.status())["active"]["candidate"]
        other = {"deep": "flat", "flat": "deep"}[served]
        await place.switch("chat", other)
        await place.until(lambda s: "WaitingForAccelerator" in str(s), what="it waits in silence")
        assert condition(await place.status(), "Available")["status"] == "True"
        await place.runner.set_capacity({GPU: "2"})
        await place.until(lambda s: s["active"]["candidate"] == other, what="not when there was room")


async def test_a_wrong_object_is_refused_with_the_fix(place: Scene) -> None:
    wrong = place.deployment(slo={"e2eLatencyMs": 100, "ttftMs": 10})
    with pytest.raises(ClusterError, match="e2eLatencyMs") as refused:
        await place.create(wrong)
    assert refused.value.status == 422


async def test_a_secret_that_is_missing_is_a_condition_and_heals(place: Scene, measured: Measured) -> None:
    await place.start_operator()
    await place.create(place.deployment(service={"tls": {"secretName": "tls"}}), measured)
    told = await place.until(lambda s: condition(s, "Ready")["status"] == "False", what="nothing said")
    await place.until(lambda s: condition(s, "Ready").get("reason") == "InvalidSpec", what="not refused")
    assert "spec.service.tls" in str((await place.status())["conditions"]), told
    await place.patch("chat", {"service": {"tls": None}})
    await place.ready()


async def test_a_claim_that_is_missing_is_named_and_awaited(place: Scene, measured: Measured) -> None:
    """A candidate on it fails alone; the others serve."""
    await place.start_operator()
    obj = place.deployment()
    obj["spec"]["candidates"].append({"name": "lost", "uri": "pvc://lost/model", "exitLayers": [2]})
    await place.create(obj, measured)
    await place.until(lambda s: s.get("active"), what="the others do not serve")
    await place.until(lambda s: "PersistentVolumeClaim lost" in str(s["conditions"]), what="not named")
    await place.claim("lost")
    (place.runner.claims / "lost").mkdir()
    (place.runner.claims / "lost" / "model").symlink_to(place.runner.claims / "models" / "flat")
    await place.until(lambda s: "PersistentVolumeClaim lost" not in str(s), what="not found again")
    await place.ready()
