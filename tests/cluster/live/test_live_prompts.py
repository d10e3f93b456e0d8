"""Prompts of real requests: sampled in the serving pods, fetched by Quality Jobs, seen by nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helios_operator.cluster.kinds import CONFIG_MAP, EVENT, JOB, PROFILE, Object
from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import GenerateRequest, SamplingParams

from tests.cluster.live.scene import Measured, Scene, condition

SECRET_WORD = "Rachel"
PROMPTS = 48
"""At three a second: a set is kept for a while, so that a Job that starts late still finds it."""


async def test_choices_are_made_on_live_prompts(place: Scene, measured: Measured) -> None:
    """The first, and a switch that nobody asked for by name when more quality is asked."""
    timed = Measured([row for row in measured.rows if row["spec"]["kind"] == "Timing"], measured.candidates)
    given = {row["spec"]["quality"]["promptsDigest"] for row in measured.rows if row not in timed.rows}
    live = {"prompts": {"live": {"maxPrompts": PROMPTS, "consent": True}}, "maxParallelism": 2}
    await place.start_operator()
    obj = place.deployment(profiling=live)
    depths = {"flat": {"min": 3}, "deep": {"max": 2}}  # the better one, and the faster one
    for candidate in obj["spec"]["candidates"]:
        candidate["layerBudget"] = depths[candidate["name"]]
    await place.create(obj, timed.slower("pvc://models/flat", times=3))
    await place.until(_waits_and_serves, what="it does not say that it waits")
    async with _requests(place):
        status = (await place.ready())["status"]
        assert status["active"]["candidate"] == "deep"
        assert status["reassessment"]["reason"] == "FirstSelection"  # the reference may be the choice
        rows = await _qualities(place)
        assert {row["status"]["phase"] for row in rows} == {"Complete"}
        digests = {row["spec"]["quality"]["promptsDigest"] for row in rows}
        assert len(digests) == 1  # all on the same
        assert not digests & given
        await place.patch("chat", {"slo": {"minQualityPercent": 95}})
        await place.until(lambda s: s["active"]["candidate"] == "flat", what="no better model")
        status = (await place.ready())["status"]
        assert status["history"][-1]["kind"] == "Switch"
    for kind in (CONFIG_MAP, EVENT, JOB, PROFILE):
        assert SECRET_WORD not in json.dumps(await place.objects(kind))


def _waits_and_serves(status: Object) -> bool:
    said = condition(status, "Available")["status"], condition(status, "Profiled").get("reason")
    return said == ("True", "WaitingForPrompts")


async def _qualities(place: Scene) -> list[Object]:
    return [row for row in await place.objects(PROFILE) if row["spec"]["kind"] == "Quality"]


@asynccontextmanager
async def _requests(place: Scene) -> AsyncIterator[None]:
    """One after another, each with a text of its own."""
    stop = asyncio.Event()

    async def ask() -> None:
        number = 0
        async with GenerationClient(await place.front()) as client:
            while not stop.is_set():
                number += 1
                text = f"It was the {SECRET_WORD}, ship {number}, that in her search found another orphan."
                parameters = SamplingParams(max_tokens=4, ignore_eos=True)
                request = GenerateRequest(model="chat", text=text, sampling_params=parameters)
                await client.generate(request, timeout=120).complete()
                await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        yield
        stop.set()
