"""Two operators at work, as after a partition: neither undoes what the other wrote, no generation is used
twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from helios_contract import limits as document
from helios_operator.api import ports
from helios_operator.cluster.kinds import CONFIG_MAP
from helios_operator.errors import ControlError
from helios_operator.passes.line import Line

from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.pod import FakePod
from tests.cluster.fake.scene import Place, scene
from tests.render.objects import serving_limits


def generation(place: Place, name: str) -> int:
    return int(json.loads(place.get(CONFIG_MAP, name)["data"]["limits.json"])["generation"])


async def test_a_document_that_another_operator_wrote_is_not_written_over() -> None:
    async with scene() as place:
        place.create(deployment())
        name = f"chat-{(await place.ready())['active']['revision']}"
        (pod,) = place.kubelet.pods.values()
        theirs = document.from_json(place.get(CONFIG_MAP, name)["data"]["limits.json"])
        theirs = replace(theirs, generation=theirs.generation + 1, max_queue_size=77)
        text = document.to_json(theirs)
        place.store.merge(CONFIG_MAP, NAMESPACE, name, {"data": {"limits.json": text}}, "other operator")
        place.patch(limits={"memoryMiB": 1600})  # ours decides too, by what it read before
        await place.until(lambda: pod.limits.memory_mib == 1600)
        assert generation(place, name) == theirs.generation + 1
        sent = {told.generation: told.SerializeToString(deterministic=True) for told in pod.documents}
        assert all(
            sent[told.generation] == told.SerializeToString(deterministic=True) for told in pod.documents
        )
        await place.ready()


async def test_a_pod_that_another_told_is_looked_at_again_before_it_is_told() -> None:
    before = serving_limits(generation=1)
    pod = FakePod(document.to_json(before), "secret")
    line = Line(f"{await pod.open()}:{ports.CONTROL}", "secret")
    try:
        seen = await line.look()
        assert seen is not None
        pod.limits.generation = 2  # theirs, since that look
        refused: list[ControlError] = []
        answered = asyncio.Event()
        line.tell(replace(before, generation=3), seen, answered.set, refused.append)
        await answered.wait()
        assert (pod.limits.generation, refused) == (2, [])
        seen = await line.look()
        assert seen is not None
        answered.clear()
        line.tell(replace(before, generation=3), seen, answered.set, refused.append)
        await answered.wait()
        assert (pod.limits.generation, refused) == (3, [])
    finally:
        await line.hang_up()
        await pod.close()


async def test_what_a_pod_refused_is_not_asked_for_again() -> None:
    before = serving_limits(generation=1)
    pod = FakePod(document.to_json(before), "secret")
    pod.refuses = "there is no room"
    line = Line(f"{await pod.open()}:{ports.CONTROL}", "secret")
    try:
        refused: list[ControlError] = []
        for _ in range(3):
            seen = await line.look()
            assert seen is not None
            answered = asyncio.Event()
            line.tell(replace(before, generation=2), seen, answered.set, refused.append)
            if not refused:
                await answered.wait()
        assert len(pod.documents) == len(refused) == 1
        assert "there is no room" in refused[0].problem
    finally:
        await line.hang_up()
        await pod.close()
