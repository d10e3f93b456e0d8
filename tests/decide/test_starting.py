"""The first start: who serves before anything is measured, and what happens when that does not work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.api.annotations import REASSESS, SWITCH_TO, reassess_value, switch_value
from helios_operator.api.types import (
    Bounds,
    ConfigMapRef,
    Decision,
    LimitsSpec,
    LivePrompts,
    Prompts,
    Selection,
    SelectionPolicy,
)
from helios_operator.decide import weigh
from helios_operator.decide.plan import CreateRevision, DeleteRevision, StartJob
from helios_operator.decide.snapshot import JobKind

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.truth import BARE_BIG, BARE_SMALL, BIG, GENERAL, Model, memory_for
from tests.decide.world import World


def creations(made: World) -> list[CreateRevision]:
    return [action for action in made.actions if isinstance(action, CreateRevision)]


def looks(made: World) -> int:
    jobs = [action.job for action in made.actions if isinstance(action, StartJob)]
    return sum(job.kind is JobKind.INSPECT for job in jobs)


def with_limits(made: World, **changes: object) -> World:
    """Before anything has run."""
    limits = replace(made.spec.limits, **changes)  # type: ignore[arg-type]
    made.spec = replace(made.spec, limits=limits)
    made.deployment = replace(made.deployment, spec=made.spec)
    return made


def test_the_deepest_candidate_is_the_reference() -> None:
    made = world(small=BARE_SMALL, big=BARE_BIG)
    made.run(6)
    assert made.active == ("big", 30)


def test_its_batch_is_what_fits_until_its_memory_is_known() -> None:
    made = world(general=GENERAL)
    made.run(6)
    assert creations(made)[0].limits.max_batch_size == 0
    made.run(6)
    assert next(iter(made.revisions.values())).limits.max_batch_size == 4


def test_a_reference_that_does_not_fit_is_followed_by_the_deepest_depth_that_does() -> None:
    made = with_limits(world(inline(), general=GENERAL), memory_mib=memory_for(BIG, rows=1) - 8)
    made.starts = lambda limits: limits.layer_budget < 30
    made.run(60)
    assert made.active is not None
    assert made.active[1] < 30
    assert [entry.result for entry in made.status.history][:1] == ["Failed"]


def test_no_memory_for_one_request_starts_nothing_and_names_the_numbers() -> None:
    made = with_limits(world(inline(), general=GENERAL), memory_mib=500)
    made.starts = lambda limits: False
    made.run(90)
    assert made.active is None
    assert condition(made, "Available")[0] == "False"
    ready = next(c for c in made.status.conditions if c.type == "Ready")
    assert "MiB" in ready.message + "".join(c.message for c in made.status.conditions)


def test_a_candidate_that_cannot_be_found_does_not_spoil_the_others() -> None:
    broken = Model(BARE_SMALL.backbone, problem="file:///models/small: no such directory; check the uri")
    made = selected(world(inline(), 90, general=GENERAL, broken=broken))
    assert made.active == ("general", 24)
    states = {c.name: (c.state, c.message) for c in made.status.candidates}
    assert states["broken"] == ("Failed", "file:///models/small: no such directory; check the uri")
    assert condition(made, "Profiled") == ("False", "ProfileFailed")


def test_when_none_can_be_found_nothing_starts_and_the_reason_is_said() -> None:
    broken = Model(BARE_BIG.backbone, problem="no such directory")
    made = world(broken=broken)
    made.run(10)
    assert not creations(made)
    assert condition(made, "Ready") == ("False", "NoFeasibleCandidate")
    assert "no such directory" in next(c.message for c in made.status.conditions if c.type == "Ready")


def test_a_fault_is_looked_at_again_less_and_less_often() -> None:
    broken = Model(BARE_BIG.backbone, problem="no such directory")
    made = world(broken=broken)
    made.run(100, every=5)
    soon = looks(made)
    assert soon in (2, 3)
    made.run(800, every=5)
    assert looks(made) - soon in (2, 3, 4)
    made.truth = dict.fromkeys(made.truth, GENERAL)
    made.run(620, every=5)
    assert made.active == ("broken", 30)


def test_a_candidate_whose_pods_crash_gives_way_to_the_next() -> None:
    made = world(inline(), small=BARE_SMALL, big=BARE_BIG)
    made.starts = lambda limits: limits.candidate != "big"
    made.run(60)
    assert made.active == ("small", 26)
    assert any(isinstance(action, DeleteRevision) for action in made.actions)


def test_the_only_candidate_is_tried_again_and_again_with_the_words_of_its_pod() -> None:
    made = world(general=GENERAL)
    made.starts = lambda limits: False
    made.run(60)
    assert len(creations(made)) == 1
    available = next(c for c in made.status.conditions if c.type == "Available")
    assert available.message == "the checkpoint does not load"


def test_a_layer_budget_above_every_depth_is_refused() -> None:
    made = with_limits(world(general=GENERAL), layer_budget=Bounds(min=40))
    made.run(10)
    assert not creations(made)
    assert condition(made, "Ready") == ("False", "InvalidSpec")
    message = next(c.message for c in made.status.conditions if c.type == "Ready")
    assert message == "spec.limits.layerBudget.min: 40 is above every candidate's depth; use at most 30"


def test_a_layer_budget_is_clipped_to_each_depth() -> None:
    made = with_limits(world(big=BARE_BIG, small=BARE_SMALL), layer_budget=Bounds(min=28, max=30))
    made.run(6)
    assert made.active == ("big", 30)
    assert {c.name: c.layer_budget for c in made.status.candidates} == {"big": 30, "small": 26}


def test_a_pinned_candidate_is_the_reference() -> None:
    made = world(small=BARE_SMALL, big=BARE_BIG)
    made.spec = replace(made.spec, selection=Selection(SelectionPolicy.PINNED, "small"))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(6)
    assert made.active == ("small", 26)


def test_without_prompts_full_depth_serves_and_the_fix_is_said() -> None:
    made = world(Prompts(), general=GENERAL)
    made.run(30)
    assert made.active == ("general", 30)
    assert condition(made, "Profiled") == ("False", "NoPrompts")
    kinds = {action.job.kind for action in made.actions if isinstance(action, StartJob)}
    assert kinds == {JobKind.INSPECT, JobKind.TIMING}


@pytest.mark.parametrize(
    ("prompts", "fix"),
    [
        (Prompts(), "set profiling.prompts.live, configMapRef or inline"),
        (Prompts(live=LivePrompts(32, consent=False)), "set profiling.prompts.live"),
        (Prompts(config_map_ref=ConfigMapRef("texts", "whales")), "ConfigMap texts does not exist"),
    ],
)
def test_no_prompts_are_no_prompts_everywhere(prompts: Prompts, fix: str) -> None:
    """And neither an infeasible candidate nor a measurement that never ends."""
    made = world(prompts, general=GENERAL, big=BARE_BIG)
    phases: list[str] = []
    made.watch.append(lambda w, s, plan: phases.append(plan.status.phase))
    made.run(30)
    memory = made.status.reassessment
    assert condition(made, "Ready") == condition(made, "Profiled") == ("False", "NoPrompts")
    assert (memory.decision, memory.reason) == (Decision.INCONCLUSIVE, "NoPrompts")
    assert {c.state for c in made.status.candidates} == {"NoPrompts"}
    assert {o.verdict.reason for o in weigh(made.snapshot(), made.now)[1]} == {"NoPrompts"}
    ready = next(c.message for c in made.status.conditions if c.type == "Ready")
    assert all(fix in said for said in (ready, memory.message, made.status.candidates[0].message))
    assert list(dict.fromkeys(phases)) == ["Starting", "Profiling", "Degraded"]


def test_a_switch_by_hand_brings_no_prompts() -> None:
    made = world(Prompts(), general=GENERAL)
    made.run(30)
    made.annotate(SWITCH_TO, switch_value("general", made.now))
    made.run(5)
    made.annotate(REASSESS, reassess_value(made.now))
    made.run(5)
    assert condition(made, "Ready") == ("False", "NoPrompts")
    assert made.status.reassessment.reason == "NoPrompts"
    made.edit(profiling=replace(made.spec.profiling, prompts=inline()))
    made.run(20)
    assert condition(made, "Ready") == ("True", "Serving")


def test_zero_replicas_serve_nothing_and_are_no_failure() -> None:
    made = world(general=GENERAL)
    made.spec = replace(made.spec, replicas=0)
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(10)
    assert condition(made, "Available") == ("False", "ScaledToZero")
    made.edit(replicas=2)
    made.run(10)
    assert condition(made, "Available") == ("True", "MinimumReplicasServing")
    assert made.status.ready_replicas == 2


def test_limits_are_the_specs() -> None:
    made = with_limits(world(general=GENERAL), max_queue_size=7)
    made.run(6)
    limits = creations(made)[0].limits
    assert (limits.max_queue_size, limits.audit.percent, limits.live_prompts) == (7, 50, 32)
    assert limits.tokens_per_request == 112
    assert limits.memory_mib == made.spec.limits.memory_mib
    assert [bundle.digest for bundle in limits.audit.bundles] == ["sha256:general"]
    assert limits.exit_layers == (24, 27)
    assert isinstance(made.spec.limits, LimitsSpec)
