"""The loop with the real model, by images, chart and pods: what the README promises, on a cluster. Quality,
errors and decisions are held against the promise; how fast it goes is not, for the machine is shared."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from helios_operator.cluster.kinds import Object

from tests.cluster.on_node import truth
from tests.cluster.on_node.served import ServedPlace, flowing, more

_SETTLED = 40
"""Requests after which what serves is known to its audit."""
_STREAMS = 20
_TELLING = (55, 80)
"""Least and most words of a prompt of the standard library that tell two models apart, as in the demo."""


async def test_the_demo_becomes_ready_and_grows_when_prose_turns_to_code(place: ServedPlace) -> None:
    """In one go from nothing; no pod restarts."""
    await place.create("examples/demo.yaml")
    full = await place.timed()
    traffic = await place.traffic()
    chosen = await place.chosen(traffic, "prose")
    pods = await place.restarts()
    async with flowing(traffic, "prose") as ledger:
        await more(ledger, _SETTLED)
    assert chosen["layerBudget"] < full["layerBudget"] == 30
    assert chosen["maxBatchSize"] > full["maxBatchSize"]  # the memory of the layers became rows
    changes = await place.changes()
    async with flowing(traffic, "code") as ledger:
        change = await place.until_change(changes)
        await more(ledger, 32)
    assert change["kind"] == "Grow", change
    assert change["to"]["layerBudget"] > chosen["layerBudget"]
    await place.ready()
    assert await place.restarts() == pods
    assert set(pods.values()) == {0}
    truth.check(ledger.streams[-8:])


async def test_the_specialists_are_swapped_when_prose_turns_to_code(place: ServedPlace) -> None:
    """Heads trained on prose, then those trained on code: on the same backbone, in the same pod."""
    await place.create("examples/specialists.yaml")
    await place.timed()
    traffic = await place.traffic()
    chosen = await place.chosen(traffic, "prose")
    pods = await place.restarts()
    async with flowing(traffic, "prose") as ledger:
        await more(ledger, _SETTLED)
    assert chosen["candidate"] == "prose"
    changes = await place.changes()
    async with flowing(traffic, "code") as ledger:
        change = await place.until_change(changes)
        await more(ledger, 32)
    assert (change["kind"], change["to"]["candidate"]) == ("SwapHeads", "code"), change
    await place.ready()
    assert await place.restarts() == pods
    assert set(pods.values()) == {0}
    truth.check(ledger.streams[-8:])


async def test_another_model_takes_over_and_loses_no_stream(place: ServedPlace) -> None:
    """Prose is served by the shallower backbone, with a row for each of 20 streams; code is beyond it, and
    the other one comes in a pod of its own. What the planner may spend is the containers' own hard
    limit."""
    limited = {"name": "helios-server", "resources": {"limits": {"memory": "600Mi"}}}
    template = {"spec": {"containers": [limited]}}
    await place.create("examples/two-backbones.yaml", limits={"maxQueueSize": 256}, template=template)
    await place.timed()
    await place.slow("pvc://models/smollm2-135m", times=2)
    traffic = await place.traffic(callers=_STREAMS + 4)
    chosen = await place.chosen(traffic, "prose")
    async with flowing(traffic, "prose") as ledger:
        await more(ledger, _SETTLED)
    assert chosen["candidate"] == "smollm2-26"
    assert chosen["maxBatchSize"] >= _STREAMS
    changes = await place.changes()
    async with flowing(traffic, "stdlib", _TELLING) as ledger:
        change = await place.until_change(changes)
        changed = _moment(change)
        await more(ledger, 3 * _STREAMS)
    assert (change["kind"], change["to"]["candidate"], change["result"]) == ("Switch", "smollm2", "Promoted")
    across = [stream for stream in ledger.streams if stream.sent < changed < stream.ended]
    assert len(across) >= _STREAMS
    truth.check(across)
    last = ledger.streams[-_STREAMS:]
    assert {(span["candidate"], span["depth"]) for stream in last for span in stream.spans} == {
        ("smollm2", 30)
    }


async def test_the_other_precision_is_told_to_the_running_pod(place: ServedPlace) -> None:
    """Whichever of the two serves once both are measured: the spec then allows the other one alone, while 20
    callers are answered."""
    await place.create("examples/demo.yaml")
    await place.timed()
    traffic = await place.traffic(callers=_STREAMS)
    await place.chosen(traffic, "prose")
    pods = await place.restarts()
    await _weigh(place, "auto", "int8")
    serving = (await place.measured())["weightDtype"]
    other = {"auto": "int8", "int8": "auto"}[serving]
    changes = await place.changes()
    async with flowing(traffic, "prose") as ledger:
        await more(ledger, _STREAMS)
        await _weigh(place, other)
        change = await place.until_change(changes)
        changed = _moment(change)
        await more(ledger, 2 * _STREAMS)
    assert (change["kind"], change["result"]) == ("Requantize", "Promoted"), change
    assert (change["from"]["weightDtype"], change["to"]["weightDtype"]) == (serving, other)
    await place.ready()
    assert await place.restarts() == pods
    assert set(pods.values()) == {0}
    across = [stream for stream in ledger.streams if stream.sent < changed < stream.ended]
    truth.check([*across, *ledger.streams[-8:]])


async def _weigh(place: ServedPlace, *weights: str) -> None:
    """From now on candidates may be served in these."""
    candidates = (await place.get())["spec"]["candidates"]
    await place.patch("chat", {"candidates": [each | {"weightDtypes": list(weights)} for each in candidates]})


def _moment(change: Object) -> float:
    """On the clock of the streams."""
    ago = datetime.now(UTC) - datetime.fromisoformat(change["time"])
    return time.monotonic() - ago.total_seconds()
