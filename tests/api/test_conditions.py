"""Reasons are words for machines with sentences for people, and the committed pages say them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helios_operator.api.conditions import ConditionType
from helios_operator.api.reasons import EVERY_REASON
from helios_operator.api.reference import api_page, conditions_page
from helios_operator.api.words import Where, Word

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("reason", EVERY_REASON)
def test_a_reason_is_a_word_with_a_sentence_and_a_place(reason: Word) -> None:
    assert re.fullmatch(r"([A-Z][a-z]+)+", reason.value)
    assert reason.name == re.sub(r"(?<!^)(?=[A-Z])", "_", reason.value).upper()
    assert reason.sentence.endswith(".")
    assert reason.where
    assert f"| {reason.value} | {reason.sentence} |" in conditions_page()


def test_the_conditions_are_those_of_the_design() -> None:
    assert [condition.value for condition in ConditionType] == [
        "Available",
        "Progressing",
        "Profiled",
        "SLOMet",
        "Ready",
    ]
    assert {condition.value for condition in ConditionType} <= {where.value for where in Where}


@pytest.mark.parametrize(("name", "page"), [("api.md", api_page), ("conditions.md", conditions_page)])
def test_the_committed_page_is_what_would_be_generated(name: str, page: object) -> None:
    assert callable(page)
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == page(), f"run `python -m helios_operator.api.reference`: docs/{name} is out of date"
