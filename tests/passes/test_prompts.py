"""Which prompts a Quality Job is given, and which it fetches from a pod."""

from __future__ import annotations

from dataclasses import replace

from helios_operator.decide.snapshot import PromptSource
from helios_operator.passes.prompts import are_given

from tests.decide.builders import world
from tests.decide.truth import GENERAL


def test_beside_given_prompts_a_live_set_is_fetched() -> None:
    seen = replace(world(general=GENERAL).snapshot(), prompts=PromptSource("sha256:given", 8))
    assert are_given("sha256:given", seen)
    assert not are_given("sha256:live", seen)
    assert not are_given("", seen)
    assert not are_given("sha256:given", replace(seen, prompts=None))
