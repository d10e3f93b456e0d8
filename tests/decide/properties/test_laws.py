"""Every law, on its own stories; all of them together on random ones (test_rules)."""

from __future__ import annotations

import pytest

from tests.decide.properties.laws import (
    ALIKE,
    GROWS,
    LAWS,
    MIXED,
    RARELY_SEEN,
    RETURNS,
    SWAPS,
    Law,
    clocks_do_not_matter,
    make_alike,
    names_do_not_matter,
)
from tests.decide.properties.stories import Story

CASES = [(law, told) for law in LAWS for told in law.witnesses]


@pytest.mark.parametrize(("law", "told"), CASES, ids=[f"{law.name}-{n}" for n, (law, _) in enumerate(CASES)])
def test_the_law_holds(law: Law, told: Story) -> None:
    law.check(told)


@pytest.mark.parametrize("told", [SWAPS, RETURNS, MIXED])
def test_names_and_places_do_not_matter(told: Story) -> None:
    names_do_not_matter(told)


def test_names_do_not_break_a_tie() -> None:
    names_do_not_matter(ALIKE, make_alike)


@pytest.mark.parametrize("told", [GROWS, RETURNS, RARELY_SEEN])
def test_a_pods_clock_does_not_matter(told: Story) -> None:
    clocks_do_not_matter(told)
