"""Profiling Jobs that end otherwise than the controllers foresee: at once, never, or without a trace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from helios_operator.api import annotations as by_hand
from helios_operator.api.timestamps import format_time
from helios_operator.cluster.kinds import DEPLOYMENT, JOB, POD, PROFILE, Object
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.cluster.fake import results
from tests.cluster.fake.objects import NAMESPACE, PROMPTS, deployment
from tests.cluster.fake.scene import Place, scene


def profiling(**changes: Any) -> dict[str, Any]:
    return {"prompts": {"inline": PROMPTS}, "maxParallelism": 2} | changes


async def expire(place: Place) -> None:
    """Kubernetes' own controller of `ttlSecondsAfterFinished`, for 0: a Job goes in the moment it is done."""
    while True:
        for job in place.store.list(JOB):
            conditions = job.get("status", {}).get("conditions") or ()
            over = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
            if over and job["spec"].get("ttlSecondsAfterFinished") == 0:
                place.store.delete(JOB, NAMESPACE, job["metadata"]["name"])
        await asyncio.sleep(0)


# -- Jobs that go -------------------------------------------------------------------------------------------


async def test_a_result_is_read_though_a_finished_job_has_no_time_to_live() -> None:
    async with scene() as place, asyncio.TaskGroup() as controllers:
        expiring = controllers.create_task(expire(place))
        place.create(deployment(profiling=profiling(ttlSecondsAfterFinished=0)))
        await place.ready()
        await place.until(lambda: place.store.list(JOB) == [])
        assert starts(place) == 3  # an Inspect, a Timing of the backbone, a Quality
        assert all(row["status"]["phase"] == "Complete" for row in place.store.list(PROFILE))
        assert "jobs" not in place.status()
        expiring.cancel()


async def test_jobs_that_vanish_unread_are_started_again_with_patience() -> None:
    """As where something of the cluster deletes Jobs as soon as they end."""
    async with scene() as place:

        def sweep(_: JobSpec) -> str:
            for job in place.store.list(JOB):
                place.store.delete(JOB, NAMESPACE, job["metadata"]["name"])
            return ""

        place.kubelet.result = sweep
        began = asyncio.get_running_loop().time()
        place.create(deployment())
        await place.until(lambda: starts(place) and not place.store.list(JOB))
        await place.passes(5)
        await place.stop_operator()
        await place.start_operator()  # which knows no more than the status says
        await place.passes(5)
        (known,) = place.status()["jobs"]
        waited = asyncio.get_running_loop().time() - began
        assert known["attempts"] == starts(place) <= 1 + waited / 10  # the shortest pause, in seconds
        place.kubelet.result = results.result
        asked = format_time(datetime.now(UTC))
        request = {"metadata": {"annotations": {by_hand.REASSESS: asked}}}
        place.store.merge(DEPLOYMENT, NAMESPACE, "chat", request, "kubectl")
        await place.ready()
        assert "jobs" not in place.status()


async def test_a_job_that_failed_and_vanished_is_remembered() -> None:
    async with scene() as place:
        place.kubelet.result = lambda asked: (
            results.failure("is broken") if asked.kind is JobKind.TIMING else results.result(asked)
        )
        place.create(deployment(profiling=profiling(ttlSecondsAfterFinished=0, backoffLimit=0)))
        await place.until(lambda: "model: is broken" in place.condition("Profiled")["message"])
        before = starts(place)
        for job in place.store.list(JOB):
            place.store.delete(JOB, NAMESPACE, job["metadata"]["name"])
        await place.passes(10)
        assert starts(place) == before


# -- Jobs that stay -----------------------------------------------------------------------------------------


def with_sidecar(place: Place) -> None:
    """What a service mesh injects: it runs on when the Job's own container has ended."""
    tell = place.kubelet._tell

    def told(pod: Object, status: Object) -> None:
        if any(c["name"] == "helios-profile" for c in status.get("containerStatuses", ())):
            mesh = {
                "name": "mesh-proxy",
                "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-22T06:00:00Z"}},
            }
            status = {"phase": "Running", "containerStatuses": [mesh, *status["containerStatuses"]]}
        tell(pod, status)

    place.kubelet._tell = told  # type: ignore[method-assign]


async def test_a_result_counts_when_its_container_has_ended_and_the_job_goes() -> None:
    async with scene() as place:
        with_sidecar(place)
        place.create(deployment())
        await place.ready()
        assert all(row["status"]["phase"] == "Complete" for row in place.store.list(PROFILE))
        await place.until(lambda: place.store.list(JOB) == [])
        pods = [pod["metadata"]["name"] for pod in place.store.list(POD)]
        assert pods == [name for name in pods if name.startswith("chat-")]
        assert starts(place) == 3


def starts(place: Place) -> int:
    return sum(call[0] == "POST" and call[1].endswith("/jobs") for call in place.door.calls)
