"""Another precision on a real API server: measured, asked the user's tasks, told to the pod that serves."""

from __future__ import annotations

import json

from helios_contract import tasks
from helios_contract.tasks import Expectation, Task
from helios_operator.cluster.kinds import CONFIG_MAP, PROFILE, Object

from tests.cluster.live.scene import PROMPTS, Measured, Scene, condition
from tests.cluster.live.traffic import traffic

TASKS = [
    Task(f"t{index}", Expectation(regex="^"), prompt=f"prompt {index}", max_tokens=2) for index in range(20)
]
PROFILING = {
    "prompts": {"inline": PROMPTS},
    "tasks": {"configMapRef": {"name": "mine", "key": "mine.json"}},
    "maxParallelism": 2,
}
REASSESSMENT = {
    "auditPercent": 1,
    "everyRequests": 100000,
    "taskProbe": {"every": "10s", "count": 4},
}
INT8 = {"weightDtypes": ["int8"], "kvCacheDtypes": ["int8"]}


async def test_another_precision_is_asked_the_tasks_and_told_to_the_running_pod(
    place: Scene, measured: Measured
) -> None:
    data = {"mine.json": tasks.document(TASKS), "notes": "of nobody's concern"}
    await place.make(CONFIG_MAP, "mine", {"data": data})
    await place.start_operator()
    slo = {"minQualityPercent": 30, "minTaskPercent": 80}
    wanted = place.deployment(slo=slo, profiling=PROFILING, reassessment=REASSESSMENT)
    await place.create(wanted, measured)
    active = (await place.ready())["status"]["active"]
    pods, routed = await place.restarts(), await place.routed()
    before = len((await place.status())["history"])
    (own,) = [each for each in wanted["spec"]["candidates"] if each["name"] == active["candidate"]]
    await place.patch("chat", {"candidates": [own | INT8]})  # measured while nobody disturbs it
    await place.until(lambda s: _holds(s, "int8"), what="no Requantize")
    async with traffic(place) as answered:
        await place.patch("chat", {"candidates": [own]})
        obj = await place.until(lambda s: _holds(s, "auto"), what="no way back")
        answered.clear()
        await place.until(
            lambda s: " probed" in condition(s, "SLOMet").get("message", ""), what="no task was asked"
        )
    assert set(answered) == {active["candidate"]}
    there, back = obj["status"]["history"][before:]
    assert [(each["kind"], each["result"]) for each in (there, back)] == [("Requantize", "Promoted")] * 2
    assert (there["to"]["weightDtype"], there["to"]["kvCacheDtype"]) == ("int8", "int8")
    assert await place.restarts() == pods, "a pod was started, or ended"
    assert set(pods.values()) == {0}
    assert await place.routed() == routed
    rows = [row for row in await place.objects(PROFILE) if row["spec"]["kind"] == "Tasks"]
    found = {row["spec"]["tasks"].get("weightDtype", "auto"): row["status"]["tasks"] for row in rows}
    assert set(found) == {"auto", "int8"}
    assert {told["passed"] for told in found.values()} == {len(TASKS)}
    await _probed(place, routed)


def _holds(status: Object, weights: str) -> bool:
    return status["active"].get("weightDtype", "auto") == weights and "target" not in status


async def _probed(place: Scene, routed: int) -> None:
    """The pod has the tasks beside its limits, and nothing else of what they came with."""
    (document,) = [
        each
        for each in await place.objects(CONFIG_MAP, "chat")
        if each["metadata"]["name"] == f"chat-{routed}"
    ]
    assert set(document["data"]) == {"limits.json", "tasks.json"}
    assert json.loads(document["data"]["limits.json"])["taskProbe"]["tasksDigest"] == tasks.digest(TASKS)
    assert document["data"]["tasks.json"] == tasks.document(TASKS)
