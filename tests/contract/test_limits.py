"""The limits: one document, written and read by every release."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helios_contract import limits as document
from helios_contract.codec import Malformed
from helios_contract.limits import Baseline, Limits
from helios_operator.control import limits as limits_documents
from helios_operator.errors import StateError
from hypothesis import given, settings

from tests.contract import documents
from tests.sizes import examples

PLAIN = Limits(generation=3, candidate="chat", model_uri="file:///models/chat")


@settings(max_examples=examples(60))
@given(documents.limits)
def test_the_document_comes_back_as_it_was_written(limits: Limits) -> None:
    assert document.from_json(document.to_json(limits)) == limits


def test_fractions_are_equal_wherever_they_come_back_from() -> None:
    assert Baseline(1 / 3, 2 / 3) == Baseline(0.333333, 0.666667)
    assert replace(PLAIN, breach_threshold=0.1 + 0.2).breach_threshold == 0.3


def test_what_a_newer_release_wrote_is_kept_and_named() -> None:
    written = json.loads(document.to_json(PLAIN)) | {"speculation": {"draft": "x", "tokens": 4}}
    written["audit"]["sampler"] = "stratified"
    limits = document.from_json(json.dumps(written))
    assert limits.unknown == ("audit.sampler", "speculation.draft", "speculation.tokens")
    assert replace(limits, extra={}) == PLAIN
    grown = json.loads(document.to_json(replace(limits, layer_budget=24)))
    assert grown == {**written, "layerBudget": 24}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "document: is not JSON"),
        ("[]", r"document: is \[\], not an object"),
        ('{"candidate": "c", "modelUri": "m"}', "generation: is missing"),
        ('{"generation": 1, "candidate": "c", "modelUri": 3}', "modelUri: is 3, not a text"),
        ('{"generation": true, "candidate": "c", "modelUri": "m"}', "generation: is True, not an integer"),
        ('{"generation": 1.5, "candidate": "c", "modelUri": "m"}', "generation: is 1.5, not an integer"),
        (
            '{"generation": 1, "candidate": "c", "modelUri": "m", "exitLayers": "12"}',
            "exitLayers: is '12', not a list",
        ),
        (
            '{"generation": 1, "candidate": "c", "modelUri": "m", "exitLayers": [12, null]}',
            r"exitLayers\[1\]: is None, not an integer",
        ),
        (
            '{"generation": 1, "candidate": "c", "modelUri": "m", "audit": {"bundles": [{"uri": "u"}]}}',
            r"audit\.bundles\[0\]\.candidate: is missing",
        ),
        (
            '{"generation": 1, "candidate": "c", "modelUri": "m", "audit": {"quality": {"mean": "NaN"}}}',
            r"audit\.quality\.mean: is 'NaN', not a number",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        document.from_json(text)
    with pytest.raises(StateError, match=f"r/limits.json: is damaged .{said}"):
        limits_documents.read(text, "r/limits.json")


def test_null_is_absent() -> None:
    written = json.loads(document.to_json(PLAIN))
    assert document.from_json(json.dumps(written | {"audit": None, "exitLayers": None})) == PLAIN
