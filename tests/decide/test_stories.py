"""The stories that the demo tells, in the simulated world: traffic in, the decisions that follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.types import Decision, Strategy
from helios_operator.decide.plan import CreateRevision, DrainRevision, Plan, WriteLimits
from helios_server.telemetry.prompts import MIN_TOKENS

from tests.decide.builders import inline, selected, world
from tests.decide.truth import BARE_BIG, BARE_SMALL, CODE, GENERAL, PROSE, bundle, candidate
from tests.decide.world import World


def test_the_reference_serves_at_full_depth_until_all_is_measured() -> None:
    made = world(general=GENERAL)
    made.run(10)
    assert made.active == ("general", 30)
    assert condition(made, "Profiled") == ("False", "WaitingForPrompts")
    awaited = f"live prompts are being collected: the first 32 of {MIN_TOKENS} tokens or more"
    assert awaited in next(c.message for c in made.status.conditions if c.type == "Profiled")
    assert condition(made, "Ready") == ("False", "NotProfiled")
    assert condition(made, "Available")[0] == "True"


def test_that_prompts_are_awaited_is_said_once() -> None:
    """`Profiled` is False before and after; a person has something to do only now."""
    made = world(general=GENERAL)
    said: list[str] = []

    def hear(w: World, snapshot: object, plan: Plan) -> None:
        said.extend(e.message for e in plan.events if e.reason == "WaitingForPrompts")

    made.watch.append(hear)
    made.run(60)
    (message,) = said
    assert message.startswith("Profiled=False: 1 of 1 profiles current; live prompts are being collected")


def test_prose_is_served_by_24_layers_and_nothing_changes() -> None:
    made = selected(world(general=GENERAL))
    assert made.active == ("general", 24)
    made.serve(400, "prose")
    assert made.kinds == ["Select"]
    assert condition(made, "Ready") == ("True", "Serving")
    assert condition(made, "SLOMet") == ("True", "WithinTarget")


def test_code_after_prose_grows_to_27() -> None:
    made = selected(world(general=GENERAL))
    made.serve(120, "code")
    assert made.kinds == ["Select", "Grow"]
    assert made.active == ("general", 27)
    assert made.lost == 0
    grow = made.status.history[-1]
    assert grow.reason == "QualityRestored"
    assert "general at 24 has quality 8" in grow.message
    assert "Grow to general at 27: quality 9" in grow.message


def fallen(made: World) -> list[str]:
    """What will be said, from now on, of requests that become too long."""
    said: list[str] = []

    def hear(w: World, snapshot: object, plan: Plan) -> None:
        said.extend(e.message for e in plan.events if e.reason == EventReason.LARGEST_REQUEST_FELL)

    made.watch.append(hear)
    return said


def test_a_grow_says_which_requests_will_be_too_long() -> None:
    made = selected(world(general=GENERAL))
    assert made.status.active
    said, before = fallen(made), made.status.active.max_request_tokens
    made.serve(120, "code")
    after = made.status.active.max_request_tokens
    assert before
    assert after
    assert after < before
    words = f"the largest request falls from {before} to {after} tokens of prompt and output"
    reasons = [action.why.message for action in made.actions if isinstance(action, WriteLimits)]
    (grow,) = (reason for reason in reasons if reason.startswith("Grow to general at 27"))
    assert [reason for reason in reasons if "the largest request" in reason] == [grow]
    assert words in grow
    assert made.status.history[-1].to.max_request_tokens == after
    assert said == [words]


def test_where_the_context_is_the_bound_a_grow_has_nothing_to_say_of_it() -> None:
    made = world(general=GENERAL)
    made.edit(limits=replace(made.spec.limits, memory_mib=100_000))
    selected(made).serve(120, "code")
    assert made.kinds == ["Select", "Grow"]
    assert made.status.active
    assert made.status.active.max_request_tokens == 2048
    assert "the largest request" not in str(made.actions)


def test_less_memory_for_the_same_service_says_so_too() -> None:
    made = selected(world(inline(), general=GENERAL))
    active = made.status.active
    assert active
    assert active.max_request_tokens
    said = fallen(made)
    memory = made.spec.limits.memory_mib
    assert memory
    made.edit(limits=replace(made.spec.limits, memory_mib=memory - 10))
    made.run(10)
    assert made.active == ("general", active.layer_budget)
    assert len(said) == 1
    assert f"from {active.max_request_tokens} to" in said[0]


def test_prose_after_code_shrinks_when_it_has_won_often_enough() -> None:
    made = selected(world(general=GENERAL), "code")
    assert made.active == ("general", 27)
    made.serve(250, "prose")
    assert made.kinds == ["Select", "Shrink"]
    assert made.active == ("general", 24)


def test_a_domain_that_no_bundle_knows_ends_at_full_depth() -> None:
    made = selected(world(general=GENERAL))
    made.serve(120, "german")
    assert made.active == ("general", 30)
    assert made.kinds == ["Select", "Grow"]


def test_depths_and_heads_change_without_a_new_pod() -> None:
    made = selected(world(general=GENERAL))
    made.serve(120, "code")
    made.serve(250, "prose")
    assert sum(isinstance(action, CreateRevision) for action in made.actions) == 1
    assert not any(isinstance(action, DrainRevision) for action in made.actions)


@pytest.mark.parametrize(("at_24", "depth"), [(0.93, 24), (0.88, 27)])
def test_specialists_are_swapped(at_24: float, depth: int) -> None:
    """At the depth in use where that suffices, else deeper: heads are exchanged either way."""
    code = bundle("sha256:code", prose=(0.76, 0.84), code=(at_24, 0.94))
    made = selected(world(prose=PROSE, code=code))
    assert made.active == ("prose", 24)
    made.serve(120, "code")
    assert made.kinds == ["Select", "SwapHeads"]
    assert made.active == ("code", depth)


def test_new_heads_under_an_old_name_are_a_change_like_any_other() -> None:
    made = selected(world(live=PROSE))
    made.serve(60, "prose")
    new = {"live": CODE}
    made.truth |= world(**new).truth
    made.edit(candidates=tuple(candidate(name, model) for name, model in new.items()))
    made.run(60)
    made.serve(150, "prose")
    last = made.status.history[-1]
    assert (last.from_.exits_digest, last.to.exits_digest) == (PROSE.digest, CODE.digest)
    assert last.to.candidate == "live"


def test_every_remedy_is_weighed_with_its_numbers() -> None:
    made = selected(world(prose=PROSE, code=CODE))
    writes: list[WriteLimits] = []
    made.watch.append(lambda w, s, plan: writes.extend(a for a in plan.actions if isinstance(a, WriteLimits)))
    made.serve(120, "code")
    numbers = writes[0].why.numbers
    assert numbers["SwapHeads.layerBudget"] == 24
    assert numbers["SwapHeads.qualityLowPercent"] > 90
    assert numbers["Grow.layerBudget"] == 30
    assert numbers["Grow.tokensPerSecond"] < numbers["SwapHeads.tokensPerSecond"]


def second_act(memory_factor: float = 10) -> World:
    made = world(min_quality=85, big=BARE_BIG, small=BARE_SMALL)
    made.memory_mib = int((made.spec.limits.memory_mib or 0) * memory_factor)
    return selected(made)


def test_a_shift_right_after_a_change_is_noticed_without_an_alarm() -> None:
    """The detectors took the new traffic for normal; its texts are of another kind than the profiled ones."""
    made = second_act(memory_factor=1.5)
    made.serve(150, "code")
    assert not any(pod.alarms for revision in made.revisions.values() for pod in revision.pods)
    assert made.active == ("big", 30)


def test_code_switches_to_the_other_backbone_by_a_new_process() -> None:
    made = second_act()
    assert made.active == ("small", 26)
    made.serve(150, "code")
    assert made.active == ("big", 30)
    assert made.kinds == ["Select", "Switch"]
    assert made.status.rollout.strategy == "Surge"
    assert "Auto chose Surge: a second pod fits" in made.status.rollout.message
    assert made.lost == 0
    assert "prompts" in made.status.history[-1].message


def test_code_switches_in_place_when_memory_holds_one_pod() -> None:
    made = second_act(memory_factor=1.5)
    made.serve(60, "prose")
    made.serve(150, "code")
    assert made.active == ("big", 30)
    assert made.status.rollout.strategy == "InPlace"
    assert sum(isinstance(action, CreateRevision) for action in made.actions) == 1
    assert "Auto chose InPlace: a second pod needs" in made.status.rollout.message


def test_prose_switches_back_after_wins_and_the_reversal_backs_off() -> None:
    made = second_act()
    made.serve(150, "code")
    made.serve(250, "prose")
    assert made.kinds == ["Select", "Switch", "Switch"]
    assert made.active == ("small", 26)
    assert made.status.reassessment.backoff_seconds > 0


def test_another_backbone_is_measured_on_prompts_after_the_shift() -> None:
    made = second_act()
    made.serve(150, "code")
    newest = made.rows[made.status.active.quality]
    assert {text.domain for text in made.sets[newest.identity.prompts_digest]} == {"code"}


def test_recreate_stops_the_old_pods_first_and_says_so() -> None:
    made = world(min_quality=85, big=BARE_BIG, small=BARE_SMALL)
    made.spec = replace(made.spec, rollout=replace(made.spec.rollout, strategy=Strategy.RECREATE))
    made.deployment = replace(made.deployment, spec=made.spec)
    reasons = set()
    made.watch.append(lambda w, s, plan: reasons.update(c.reason for c in plan.status.conditions))
    selected(made)
    assert made.active == ("small", 26)
    assert made.lost > 0
    assert "OutageByRecreate" in reasons
    assert made.kinds == ["Select"]


def condition(made: World, kind: str) -> tuple[str, str]:
    found = next(c for c in made.status.conditions if c.type == kind)
    return found.status, found.reason


def test_history_tells_what_was_left_and_taken() -> None:
    made = selected(world(general=GENERAL))
    made.serve(120, "code")
    select, grow = made.status.history
    assert select.from_ is None
    assert select.kind is Decision.SELECT
    assert (grow.from_.layer_budget, grow.to.layer_budget) == (24, 27)
    assert grow.at_request > 0
    assert grow.seconds >= 0
