"""The spec changes while a model serves: the successor serves first, settings are told, nothing restarts
needlessly."""

from __future__ import annotations

from dataclasses import replace

from helios_operator.api.types import Bounds, Selection, SelectionPolicy, Strategy
from helios_operator.decide.plan import (
    CreateRevision,
    DeleteRevision,
    DrainRevision,
    ScaleRevision,
    WriteLimits,
)

from tests.decide.builders import inline, selected, world
from tests.decide.test_by_hand import ask_to_switch
from tests.decide.test_catalogue import chooser
from tests.decide.test_stories import condition, second_act
from tests.decide.truth import (
    BARE_BIG,
    BARE_SMALL,
    BIG,
    CODE,
    GENERAL,
    PROSE,
    Backbone,
    Model,
    candidate,
    memory_for,
)
from tests.decide.world import World


def creations(made: World) -> int:
    return sum(isinstance(action, CreateRevision) for action in made.actions)


def remove(made: World, name: str) -> None:
    made.edit(candidates=tuple(c for c in made.spec.candidates if c.name != name))


def test_a_higher_quality_deepens_the_choice() -> None:
    made = selected(world(inline(), general=GENERAL))
    assert made.active == ("general", 24)
    made.edit(slo=replace(made.spec.slo, min_quality_percent=96))
    made.run(5)
    assert made.active == ("general", 27)
    made.edit(slo=replace(made.spec.slo, min_quality_percent=99))
    made.run(5)
    assert made.active == ("general", 30)
    assert creations(made) == 1


def test_a_lower_quality_is_taken_up_like_any_gain_after_wins() -> None:
    made = selected(world(min_quality=96, general=GENERAL))
    assert made.active == ("general", 27)
    made.edit(slo=replace(made.spec.slo, min_quality_percent=90))
    made.run(5)
    assert made.active == ("general", 27)
    made.serve(200, "prose")
    assert made.active == ("general", 24)


def test_an_impossible_slo_takes_nothing_down() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(slo=replace(made.spec.slo, itl_ms=1))
    made.run(30)
    assert made.active == ("general", 24)
    assert condition(made, "Available")[0] == "True"
    assert condition(made, "Ready") == ("False", "NoFeasibleCandidate")


def test_the_successor_of_a_removed_candidate_serves_first() -> None:
    made = second_act()
    served: list[bool] = []
    made.watch.append(
        lambda w, s, plan: served.append(any(p.ready for r in s.revisions if r.routed for p in r.pods))
    )
    remove(made, "small")
    made.run(20)
    assert made.active == ("big", 30)
    assert all(served)
    assert made.status.history[-1].reason == "SpecChanged"


def test_an_unmeasured_successor_is_measured_first() -> None:
    made = selected(world(inline(), 85, big=BARE_BIG))
    small = candidate("small", BARE_SMALL)
    made.truth[("file:///models/small", "", "", ())] = BARE_SMALL
    made.edit(candidates=(small,))
    made.step()
    assert made.active == ("big", 30)
    assert condition(made, "Available")[0] == "True"
    assert condition(made, "Ready") == ("False", "SpecChanged")
    made.run(40)
    assert made.active == ("small", 26)
    assert condition(made, "Ready")[0] == "True"
    assert made.lost == 0


def test_a_successor_that_nobody_wants_any_more_is_given_up() -> None:
    made = second_act()
    made.start_seconds = 30
    ask_to_switch(made, "big")
    made.step()
    assert len(made.revisions) == 2
    remove(made, "big")
    made.run(10)
    assert made.active == ("small", 26)
    assert len(made.revisions) == 1
    assert not [entry for entry in made.status.history if entry.result == "Failed"]


def test_more_memory_makes_a_bigger_batch_without_a_restart() -> None:
    made = selected(world(inline(), general=GENERAL))
    before = made.status.active.max_batch_size
    made.edit(limits=replace(made.spec.limits, memory_mib=memory_for(BIG, rows=12)))
    made.run(5)
    assert made.status.active.max_batch_size > before
    assert creations(made) == 1
    assert made.kinds == ["Select"]


def test_less_memory_than_the_depth_needs_is_a_repair() -> None:
    made = selected(world(inline(), min_quality=99, general=GENERAL))
    assert made.active == ("general", 30)
    made.edit(
        limits=replace(made.spec.limits, memory_mib=memory_for(BIG, rows=1) - 15),
        slo=replace(made.spec.slo, min_quality_percent=90),
    )
    made.run(5)
    assert made.active[1] < 30
    assert made.kinds == ["Shrink"]


def test_settings_are_told_to_running_pods() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(reassessment=replace(made.spec.reassessment, audit_percent=7))
    made.run(3)
    assert next(iter(made.revisions.values())).pods[0].limits.audit.percent == 7
    assert creations(made) == 1


def test_settings_that_were_measured_are_no_change_of_the_spec() -> None:
    """The reference is told how many rows fit once it is timed."""
    made = selected(world(inline(), general=GENERAL))
    told = [action.why.reason for action in made.actions if isinstance(action, WriteLimits)]
    assert told == ["SettingsChanged", "FirstSelection"]


def test_settings_that_had_to_wait_are_a_change_of_the_spec() -> None:
    made = world(inline(), general=GENERAL)
    made.start_seconds = 10
    made.run(5)
    made.edit(reassessment=replace(made.spec.reassessment, audit_percent=7))
    made.run(20)
    told = [action.why.reason for action in made.actions if isinstance(action, WriteLimits)]
    assert told[0] == "SpecChanged"


def test_pods_of_another_release_are_no_change_of_the_spec() -> None:
    made = selected(world(inline(), general=GENERAL))
    next(iter(made.revisions.values())).template_current = False
    made.run(2)
    assert creations(made) == 2
    made_anew = [a.why.reason for a in made.actions if isinstance(a, CreateRevision)]
    assert made_anew[-1] == "SettingsChanged"


def test_a_candidate_that_leaves_the_catalogue_is_no_change_of_the_spec() -> None:
    made = chooser(big=BARE_BIG, small=BARE_SMALL)
    made.run(40)
    served = made.active[0]
    generation = made.deployment.generation
    made.models = tuple(model for model in made.models if model.name != served)
    reasons: list[str] = []
    made.watch.append(
        lambda w, s, p: reasons.extend(c.reason for c in p.status.conditions if c.type == "Ready")
    )
    made.run(20)
    assert made.active[0] not in (None, served)
    assert made.deployment.generation == generation
    assert made.status.history[-1].reason == "CandidatesChanged"
    assert "CandidatesChanged" in reasons
    assert "SpecChanged" not in reasons


def test_settings_that_come_long_after_the_last_change_are_no_late_rollout() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.run(2000, every=100)
    made.edit(reassessment=replace(made.spec.reassessment, audit_percent=7))
    made.run(3)
    assert next(iter(made.revisions.values())).pods[0].limits.audit.percent == 7
    assert made.status.rollout.phase == "Completed"
    assert made.status.reassessment.backoff_seconds == 0


def test_renaming_a_candidate_changes_nothing_for_callers() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(candidates=(replace(made.spec.candidates[0], name="renamed"),))
    made.run(5)
    assert made.active == ("renamed", 24)
    assert creations(made) == 1
    assert made.kinds == ["Select"]


def test_bounds_that_exclude_what_serves_move_it() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(limits=replace(made.spec.limits, layer_budget=Bounds(min=26)))
    made.run(5)
    assert made.active == ("general", 27)
    assert made.status.history[-1].reason == "SpecChanged"


def test_going_back_and_forth_by_the_spec_holds_nothing_up() -> None:
    made = selected(world(inline(), general=GENERAL))
    for layers in (30, 24, 30, 24):
        bounds = Bounds(layers, layers)
        made.edit(limits=replace(made.spec.limits, layer_budget=bounds))
        made.run(10)
        assert made.active == ("general", layers)
    assert made.status.reassessment.backoff_until is None


def test_pinning_another_candidate_moves_to_it() -> None:
    made = selected(world(inline(), prose=PROSE, code=CODE))
    made.edit(selection=Selection(SelectionPolicy.PINNED, "code"))
    made.run(5)
    assert made.active[0] == "code"


def test_replicas_follow_the_spec() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.edit(replicas=3)
    made.run(5)
    assert made.status.ready_replicas == 3
    made.edit(replicas=0)
    made.run(5)
    assert condition(made, "Available") == ("False", "ScaledToZero")
    made.edit(replicas=1)
    made.run(5)
    assert made.active == ("general", 24)
    assert creations(made) == 1
    assert sum(isinstance(action, ScaleRevision) for action in made.actions) == 3


def test_a_new_template_brings_new_pods_beside_the_old_ones() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.revisions[1].template_current = False
    made.run(15)
    assert list(made.revisions) == [2]
    assert made.active == ("general", 24)
    assert made.kinds == ["Select"]


def test_a_new_template_waits_when_a_second_pod_does_not_fit() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.memory_mib = int((made.spec.limits.memory_mib or 0) * 1.2)
    made.revisions[1].template_current = False
    made.run(15)
    assert list(made.revisions) == [1]
    assert condition(made, "Progressing") == ("True", "WaitingForAccelerator")


def test_a_model_that_no_mount_reaches_waits_for_room_for_a_new_pod() -> None:
    made = second_act(memory_factor=1.5)
    made.claims = ("models",)
    made.edit(
        candidates=tuple(
            replace(c, uri=c.uri.replace("file:///", "pvc://other/")) for c in made.spec.candidates
        )
    )
    made.truth.update(
        {(f"pvc://other/models/{m.backbone.fingerprint}", "", "", ()): m for m in (BARE_BIG, BARE_SMALL)}
    )
    made.run(60)
    made.serve(100, "prose")
    assert len(made.revisions) == 1
    progressing = next(c for c in made.status.conditions if c.type == "Progressing")
    assert progressing.reason == "WaitingForAccelerator"
    assert "no mount of the running pods reaches pvc://other/models/" in progressing.message
    made.memory_mib *= 3
    made.run(20)
    assert made.revisions[2].limits.model_uri.startswith("pvc://other/")


def test_surge_waits_for_an_accelerator() -> None:
    made = second_act()
    made.accelerators_free = 0
    made.edit(rollout=replace(made.spec.rollout, strategy=Strategy.SURGE))
    ask_to_switch(made, "big")
    made.run(10)
    assert made.active == ("small", 26)
    assert condition(made, "Progressing") == ("True", "WaitingForAccelerator")
    made.accelerators_free = 1
    made.run(20)
    assert made.active == ("big", 30)


def test_old_revisions_are_kept_to_look_at_as_many_as_asked() -> None:
    made = second_act()
    made.edit(rollout=replace(made.spec.rollout, revision_history_limit=1))
    for name in ("big", "small", "big"):
        ask_to_switch(made, name)
        made.run(60)
        assert made.active is not None
        assert made.active[0] == name
        assert condition(made, "Progressing")[1] == "NoRollout"
    newest = made.status.active.revision
    assert sorted(made.revisions) == [newest - 1, newest]
    assert not made.revisions[newest - 1].pods
    made.edit(rollout=replace(made.spec.rollout, revision_history_limit=0))
    made.run(10)
    assert sorted(made.revisions) == [newest]


def test_in_place_is_taken_when_asked_for() -> None:
    made = second_act()
    made.edit(rollout=replace(made.spec.rollout, strategy=Strategy.IN_PLACE))
    ask_to_switch(made, "big")
    made.run(10)
    assert made.active == ("big", 30)
    assert not [
        a for a in made.actions[-20:] if isinstance(a, DrainRevision | DeleteRevision) and a.number == 2
    ]
    assert list(made.revisions) == [2]


def test_a_rollout_is_given_up_when_the_spec_goes_back() -> None:
    made = second_act()
    made.start_seconds = 30
    made.edit(selection=Selection(SelectionPolicy.PINNED, "big"))
    made.run(3)
    assert len(made.revisions) == 2
    made.edit(selection=Selection(SelectionPolicy.PINNED, "small"))
    made.run(60)
    assert made.active == ("small", 26)
    assert len(made.revisions) == 1
    assert made.status.reassessment.backoff_seconds == 0


def test_pods_of_a_model_that_must_go_are_not_renewed() -> None:
    """Its successor has the new template anyway."""
    made = second_act()
    new = Model(Backbone("new", 30))
    made.truth[("file:///models/new", "", "", ())] = new
    made.fails = lambda job: "not yet"
    made.edit(candidates=(candidate("new", new),))
    before = creations(made)
    for revision in made.revisions.values():
        revision.template_current = False
    made.run(30)
    assert creations(made) == before


def test_an_api_that_was_put_back_in_time_is_caught_up_with() -> None:
    """The document is older than what the pods run: they would take neither it nor its next number."""
    made = selected(world(general=GENERAL))
    (revision,) = made.revisions.values()
    older = revision.limits
    made.edit(limits=replace(made.spec.limits, max_queue_size=7))
    made.run(5)
    assert revision.pods[0].limits.max_queue_size == 7
    revision.limits = older
    made.edit(limits=replace(made.spec.limits, max_queue_size=older.max_queue_size))
    made.run(5)
    assert revision.pods[0].limits.max_queue_size == older.max_queue_size
    assert revision.pods[0].limits.generation == revision.limits.generation
    made.edit(limits=replace(made.spec.limits, max_queue_size=9))
    made.run(5)
    assert revision.pods[0].limits.max_queue_size == 9
