"""An operator newer than the CRDs: what the server does not keep of a status is not written for ever."""

from __future__ import annotations

import asyncio

import pytest
from helios_operator.cluster.kinds import DEPLOYMENT, MODEL
from helios_operator.cluster.statuses import lost, undeclared

from tests.cluster.fake.objects import deployment, of
from tests.cluster.fake.scene import PATIENCE, Place, scene

NEWER = [
    ("active", "timing"),
    ("active", "weightDtype"),
    ("candidates", "tokensPerSecond"),
    ("candidates", "resolved", "breachThresholdsMilli"),
    ("selector",),
]


@pytest.mark.parametrize("strict", [False, True], ids=["pruned", "refused"])
@pytest.mark.parametrize("field", NEWER, ids=".".join)
async def test_a_field_that_the_server_does_not_keep(field: tuple[str, ...], strict: bool) -> None:
    async with scene(operator=False) as place:
        place.store.strict = strict
        place.store.schema.forget(DEPLOYMENT, "status", *field)
        await place.start_operator()
        made = deployment()
        made["spec"]["candidates"][0] |= {"weightDtypes": ["int8"]}
        place.create(made)
        await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        await place.until(lambda: place.condition("Profiled")["status"] == "True", "nothing is said")
        await _comes_to_rest(place)
        said = [event for event in place.events() if event.startswith("CrdsOutdated")]
        assert len(said) == 1, said
        assert "status." + ".".join(field) in said[0]


async def test_an_entry_of_the_catalogue_too() -> None:
    async with scene(operator=False) as place:
        place.store.schema.forget(MODEL, "status", "observedGeneration")
        await place.start_operator()
        place.create(
            of(MODEL, "deep", metadata={"labels": {"use": "chat"}}, spec={"uri": "pvc://models/deep"})
        )
        place.create(deployment(candidates=None, candidateSelector={"matchLabels": {"use": "chat"}}))
        await place.until(lambda: place.condition("Available")["status"] == "True", "it does not serve")
        await _comes_to_rest(place)


async def _comes_to_rest(place: Place) -> None:
    """Passes go on, and write nothing."""
    async with asyncio.timeout(PATIENCE):
        while True:
            before = len(place.door.writes)
            await place.passes(6)
            if len(place.door.writes) == before:
                return


def test_the_fields_that_a_refusal_names() -> None:
    text = (
        "failed to create typed patch object (a/b; helios.dev/v1alpha1, Kind=HeliosDeployment): errors:\n"
        "  .status.active.depth: field not declared in schema\n"
        '  .status.candidates[name="a.b"].resolved.mode: field not declared in schema'
    )
    assert undeclared(text) == [("active", "depth"), ("candidates", "resolved", "mode")]
    assert undeclared("quota exceeded") == []


def test_what_did_not_come_back() -> None:
    sent = {"a": {"b": 1, "c": 2}, "items": [{"x": 1, "y": 2}], "empty": [], "none": None}
    assert list(lost(sent, {"a": {"b": 1}, "items": [{"x": 1}]})) == [("a", "c"), ("items", "y")]
    assert list(lost(sent, sent)) == []
