"""DESIGN's rules over random stories. What a story may not break is in `rules`; what may happen in it, in
`stories`."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.decide.properties.rules.standing import standing_rules
from tests.decide.properties.stories import Story, stories, tell
from tests.sizes import examples

QUICK = settings(
    max_examples=examples(12),
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=False,
)


@given(stories)
@QUICK
def test_the_rules_hold_in_every_story(story: Story) -> None:
    tell(story, list(standing_rules()))
