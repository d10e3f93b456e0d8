"""What a Job hands back: written by one part, read by another, of this or another release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helios_contract import results
from helios_contract.codec import Malformed
from helios_contract.results import (
    CandidateQuality,
    EnergyCost,
    EnergyPoint,
    ExitQuality,
    Failure,
    HeadCost,
    Inspection,
    MemoryFacts,
    OptionPasses,
    Quality,
    Resolved,
    Result,
    StepTimeFit,
    Tasks,
    Timing,
    TimingPoint,
)

from tests.contract.documents import golden

FULL: tuple[Result, ...] = (
    Inspection(
        {"a": Resolved("r", "b", 30, 2048, "sha256:1", "mlp", (24, 27), {24: 0.206, 27: 0.096})},
        {"z": "file:///x: no directory /x; Check the uri"},
    ),
    Timing(
        fit=StepTimeFit(1, 2, 3, 4, {"bare": HeadCost(5, 6), "mlp": HeadCost(7, 8)}, 9),
        memory=MemoryFacts(1, 2, 3, 4, 5, 6, 7, 8),
        exit_bytes={"bare": 0, "mlp": 10},
        audit_bytes=11,
        energy=EnergyCost("declared", (EnergyPoint(30, 4, 5),), 6),
        points=(TimingPoint(30, 4, 100, 4, "mlp", 10, 12),),
    ),
    Timing(),
    Quality(
        prompts_digest="sha256:p",
        prompts=2,
        tokens=90,
        bytes=400,
        prompt_bytes=(180, 220),
        rows=(CandidateQuality("a", "", (ExitQuality(30, 940, 100, 40, 8, 710, (430, 510)),)),),
    ),
    Tasks(
        tasks_digest="sha256:t",
        tasks=9,
        rows=(OptionPasses("a", "", 30, "ff8"), OptionPasses("b", "sha256:e", 24, "0f8", "int8", "int8")),
    ),
    Failure("quality", "prompts", "holds none", "give one"),
)


@pytest.mark.parametrize("result", FULL, ids=lambda result: type(result).__name__)
def test_it_comes_back(result: Result) -> None:
    assert results.from_json(results.to_json(result)) == result


@pytest.mark.parametrize("name", ["inspect", "timing", "quality", "failure"])
def test_what_0_1_0_handed_back_is_read_and_written_the_same(name: str) -> None:
    document = golden(f"result-{name}.json")
    read = results.from_json(json.dumps(document))
    assert not {type(read)} - {Inspection, Timing, Quality, Failure}
    assert _without_empty(results.document(read)) == _without_empty(document)


def _without_empty(value: Any) -> Any:
    """0.1.0 wrote empty maps; they are the default."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item not in ({}, [], "")}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def test_what_a_newer_release_added_is_left_alone() -> None:
    old = json.dumps(golden("result-quality.json"))
    newer = json.loads(old)
    newer["weightDtype"] = "int8"
    newer["rows"][0]["exits"][0]["taskPercent"] = 88
    assert results.from_json(json.dumps(newer)) == results.from_json(
        json.dumps(golden("result-quality.json"))
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "document: is not JSON"),
        ("[]", "schema: is None"),
        ('{"schema": "helios-result/9"}', "schema: is 'helios-result/9'"),
        ('{"schema": "helios-result/1", "kind": "taste"}', "kind: is 'taste', which is none of"),
        ('{"schema": "helios-result/1", "kind": ["timing"]}', r"kind: is \['timing'\]"),
        ('{"schema": "helios-result/1", "kind": "inspect", "resolved": []}', r"resolved: is \[\]"),
        (
            '{"schema": "helios-result/1", "kind": "inspect", "resolved": {"a": {"revision": 1}}}',
            r"resolved\.a\.revision: is 1, not a text",
        ),
        ('{"schema": "helios-result/1", "kind": "quality", "promptsDigest": "d"}', "rows: is missing"),
        ('{"schema": "helios-result/1", "kind": "timing", "fit": 7}', "fit: is 7, not an object"),
        ('{"schema": "helios-result/1", "kind": "timing", "error": "broken"}', "error: is 'broken'"),
        (
            '{"schema": "helios-result/1", "kind": "timing", "exitBytes": {"mlp": "x"}}',
            r"exitBytes\.mlp: is",
        ),
    ],
)
def test_anything_else_is_named(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        results.from_json(text)
