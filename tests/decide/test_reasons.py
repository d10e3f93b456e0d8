"""Every documented reason is said: a story that provokes each, run here, whatever else of the suite runs.

A reason that something else than `decide` says is provoked by a test elsewhere: SAID_ELSEWHERE names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import pytest
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import EVERY_REASON, Reason
from helios_operator.api.types import Bounds
from helios_operator.api.words import Word
from helios_operator.decide import Policy, decide

from tests.decide import (
    test_accelerators,
    test_analysis,
    test_by_hand,
    test_catalogue,
    test_failures,
    test_precisions,
    test_profiling,
    test_shortlist,
    test_spec_changes,
    test_starting,
    test_stories,
    test_tasks,
    test_triggers,
    test_window,
    words,
    world,
)
from tests.decide.builders import inline, selected
from tests.decide.builders import world as made_of
from tests.decide.test_triggers import with_rules
from tests.decide.truth import GENERAL
from tests.decide.world import World

ROOT = Path(__file__).resolve().parents[2]


# -- stories that no other test tells ------------------------------------------------------------------------


def deeper_than_needed(**rules: object) -> World:
    """At 27 layers after code, and 24 would do again."""
    made = selected(with_rules(made_of(general=GENERAL), **rules))
    made.serve(120, "code")
    assert made.active == ("general", 27)
    return made


def a_gain_that_is_too_small() -> None:
    made = deeper_than_needed(min_improvement_percent=1000)
    made.serve(200, "prose")
    assert made.active == ("general", 27)


def a_gain_that_costs_more() -> None:
    """By the policy: a change must gain a thousand times what it costs."""
    made = deeper_than_needed(consecutive_success_limit=1)
    made.decide = partial(decide, policy=Policy(margin=1000))
    made.serve(200, "prose")
    assert made.active == ("general", 27)


def a_gain_that_comes_too_soon() -> None:
    made = deeper_than_needed(consecutive_success_limit=1, cooldown=timedelta(hours=1))
    made.serve(200, "prose")
    assert made.active == ("general", 27)


def a_look_at_the_first_requests() -> None:
    made = selected(with_rules(made_of(inline(), general=GENERAL), every_requests=10))
    made.serve(12, "prose")


def a_quality_that_straddles_its_target() -> None:
    made = selected(made_of(inline(), general=GENERAL))
    made.serve(80, "prose")
    made.edit(slo=replace(made.spec.slo, min_quality_percent=94))
    made.run(5)


def a_latency_that_a_shallower_exit_keeps() -> None:
    made = made_of(inline(), general=GENERAL)
    made.edit(limits=replace(made.spec.limits, layer_budget=Bounds(min=27)))
    selected(made)
    assert made.active == ("general", 27)
    made.edit(limits=replace(made.spec.limits, layer_budget=Bounds()), slo=replace(made.spec.slo, itl_ms=29))
    made.run(5)
    assert made.active == ("general", 24)


def a_budget_that_no_exit_lies_in() -> None:
    made = made_of(inline(), general=GENERAL)
    (only,) = made.spec.candidates
    made.edit(candidates=(replace(only, layer_budget=Bounds(25, 26)),))
    made.run(10)


STORIES: dict[Word, Callable[[], None]] = {
    Reason.MINIMUM_REPLICAS_SERVING: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.NO_REPLICA_SERVING: test_starting.test_zero_replicas_serve_nothing_and_are_no_failure,
    Reason.STARTING: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    Reason.SCALED_TO_ZERO: test_starting.test_zero_replicas_serve_nothing_and_are_no_failure,
    Reason.NO_ROLLOUT: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.ROLLOUT_STARTED: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    Reason.LIMITS_CHANGING: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.WAITING_FOR_ACCELERATOR: test_spec_changes.test_surge_waits_for_an_accelerator,
    Reason.WAITING_FOR_DRAIN: test_spec_changes.test_the_successor_of_a_removed_candidate_serves_first,
    Reason.ANALYSING: test_analysis.test_slow_limits_are_written_back,
    Reason.PROGRESS_DEADLINE_EXCEEDED: test_starting.test_a_candidate_whose_pods_crash_gives_way_to_the_next,
    Reason.ROLLED_BACK: test_failures.test_a_refusal_is_said,
    Reason.PAUSED: test_by_hand.test_paused_holds_every_change_and_lets_go,
    Reason.OUTAGE_BY_RECREATE: test_stories.test_recreate_stops_the_old_pods_first_and_says_so,
    Reason.ALL_CANDIDATES_CURRENT: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.PROFILING_RUNNING: test_shortlist.test_a_long_inline_list_is_shortlisted_too,
    Reason.PROFILE_FAILED: test_starting.test_a_candidate_that_cannot_be_found_does_not_spoil_the_others,
    Reason.NO_PROMPTS: test_starting.test_without_prompts_full_depth_serves_and_the_fix_is_said,
    Reason.WAITING_FOR_PROMPTS: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    Reason.WAITING_FOR_IDLE: test_starting.test_a_layer_budget_is_clipped_to_each_depth,
    Reason.NO_CAPACITY_FOR_PROFILING: test_accelerators.test_a_model_that_comes_later_waits_and_says_for_what,
    Reason.WITHIN_TARGET: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.LATENCY_MISSED: test_analysis.test_slow_limits_are_written_back,
    Reason.QUALITY_MISSED: test_failures.test_a_refusal_is_said,
    Reason.INSUFFICIENT_DATA: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    Reason.NO_TARGET: test_spec_changes.test_the_successor_of_a_removed_candidate_serves_first,
    Reason.SERVING: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.INVALID_SPEC: test_starting.test_a_layer_budget_above_every_depth_is_refused,
    Reason.NO_FEASIBLE_CANDIDATE: test_spec_changes.test_an_impossible_slo_takes_nothing_down,
    Reason.NOT_PROFILED: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    Reason.REFERENCE_CANDIDATE: test_starting.test_a_pinned_candidate_is_the_reference,
    Reason.FIRST_SELECTION: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.ABOVE_MIN_IMPROVEMENT: test_spec_changes.test_a_lower_quality_is_taken_up_like_any_gain_after_wins,
    Reason.QUALITY_RESTORED: test_spec_changes.test_a_higher_quality_deepens_the_choice,
    Reason.LATENCY_RESTORED: a_latency_that_a_shallower_exit_keeps,
    Reason.SPEC_CHANGED: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.CANDIDATES_CHANGED: (
        test_spec_changes.test_a_candidate_that_leaves_the_catalogue_is_no_change_of_the_spec
    ),
    Reason.SETTINGS_CHANGED: (test_spec_changes.test_settings_that_were_measured_are_no_change_of_the_spec),
    Reason.PINNED: test_by_hand.test_pinned_weighs_the_depths_of_one_candidate_only,
    Reason.BY_HAND: test_by_hand.test_a_switch_by_hand_is_made_whatever_the_objective_says,
    Reason.REPLICAS_CHANGED: test_spec_changes.test_replicas_follow_the_spec,
    Reason.BELOW_MIN_IMPROVEMENT: a_gain_that_is_too_small,
    Reason.ALREADY_BEST: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.COST_EXCEEDS_GAIN: a_gain_that_costs_more,
    Reason.WAITING_FOR_WINS: test_spec_changes.test_a_lower_quality_is_taken_up_like_any_gain_after_wins,
    Reason.COOLING_DOWN: a_gain_that_comes_too_soon,
    Reason.BACKING_OFF: test_failures.test_a_refusal_is_said,
    Reason.NO_EVIDENCE: test_triggers.test_too_few_audits_are_said_to_be_too_few,
    Reason.COLD_SAMPLES: a_look_at_the_first_requests,
    Reason.MEASURING: test_spec_changes.test_an_unmeasured_successor_is_measured_first,
    Reason.WITHIN_NOISE: a_quality_that_straddles_its_target,
    Reason.NO_FEASIBLE_OPTION: test_spec_changes.test_an_impossible_slo_takes_nothing_down,
    Reason.ADVISORY: test_by_hand.test_advisory_says_what_it_would_do_and_does_nothing,
    Reason.SUSPENDED: test_by_hand.test_suspended_holds_repairs_and_says_so,
    Reason.OUTSIDE_WINDOW: test_window.test_a_window_that_never_opens_says_so,
    Reason.LIMITS_REFUSED: test_failures.test_a_refusal_is_said,
    Reason.NOT_ENOUGH_MEMORY: test_shortlist.test_nine_are_turned_away_each_with_its_reason,
    Reason.NOT_SHORTLISTED: test_shortlist.test_nine_are_turned_away_each_with_its_reason,
    Reason.UNRESOLVED: test_starting.test_a_candidate_that_cannot_be_found_does_not_spoil_the_others,
    Reason.QUALITY_TOO_LOW: test_shortlist.test_nine_are_turned_away_each_with_its_reason,
    Reason.TASKS_NOT_MEASURED: test_tasks.test_a_reference_that_cannot_be_asked_is_named,
    EventReason.TASK_ALARM: test_tasks.test_a_fall_is_repaired_and_what_fell_is_asked_anew,
    Reason.TASKS_TOO_LOW: test_tasks.test_a_bundle_that_keeps_quality_and_breaks_tasks_is_refused,
    Reason.TASKS_MISSED: test_tasks.test_what_nothing_mends_is_told_as_missed,
    Reason.TASKS_RESTORED: test_tasks.test_a_service_that_breaks_the_tasks_is_left,
    Reason.TOO_FEW_TASKS: test_tasks.test_too_few_tasks_take_nothing_down,
    Reason.NO_TASKS: test_tasks.test_tasks_that_cannot_be_read_are_named_and_take_nothing_down,
    Reason.LATENCY_TOO_HIGH: test_spec_changes.test_an_impossible_slo_takes_nothing_down,
    Reason.PRECISION_UNSUPPORTED: test_precisions.a_precision_that_no_cpu_has,
    Reason.OUT_OF_BUDGET: a_budget_that_no_exit_lies_in,
    EventReason.PROFILING_STARTED: test_spec_changes.test_settings_are_told_to_running_pods,
    EventReason.PROFILING_FINISHED: test_spec_changes.test_settings_are_told_to_running_pods,
    EventReason.ROW_EXPIRED: test_profiling.test_old_rows_beyond_the_history_limit_go_and_those_in_use_stay,
    EventReason.JOB_EXPIRED: test_profiling.test_finished_jobs_are_deleted_after_their_time,
    EventReason.REASSESSMENT_STARTED: test_spec_changes.test_settings_are_told_to_running_pods,
    EventReason.AUDIT_ALARM: test_failures.test_an_alarm_that_vanishes_with_its_pod_ends_the_reassessment,
    EventReason.CONFIDENCE_ALARM: test_stories.test_code_switches_in_place_when_memory_holds_one_pod,
    EventReason.BREACH_ALARM: test_triggers.test_the_papers_trigger_loads_the_remaining_layers,
    EventReason.TRAFFIC_MOVED: test_stories.test_the_reference_serves_at_full_depth_until_all_is_measured,
    EventReason.REVISION_DELETED: test_spec_changes.test_the_successor_of_a_removed_candidate_serves_first,
    EventReason.ROLLOUT_COMPLETED: test_spec_changes.test_settings_are_told_to_running_pods,
    EventReason.LARGEST_REQUEST_FELL: test_stories.test_a_grow_says_which_requests_will_be_too_long,
    Reason.MEASURED: test_spec_changes.test_settings_are_told_to_running_pods,
    Reason.MEASUREMENT_FAILED: test_accelerators.test_a_timing_that_fails_does_not_keep_serving_from_starting,
    Reason.REVISION_FOUND: test_catalogue.test_what_inspect_finds_is_said_of_the_entry,
    Reason.REVISION_NOT_FOUND: test_catalogue.test_what_inspect_finds_is_said_of_the_entry,
}
SAID_ELSEWHERE: dict[Word, str] = {
    Reason.STATUS_UNREADABLE: (
        "tests/cluster/test_unreadable.py::test_a_status_of_another_release_stops_its_object_alone"
    ),
    Reason.PASS_FAILED: (
        "tests/cluster/test_unreadable.py::test_a_fault_in_one_pass_shows_there_and_nowhere_else"
    ),
    Reason.NAME_TAKEN: "tests/cluster/test_names.py::test_what_is_anothers_stays_as_it_is",
    Reason.WRITE_REFUSED: "tests/cluster/test_refusals.py::test_a_quota_on_jobs",
    Reason.PODS_REFUSED: "tests/cluster/test_refusals.py::test_pods_that_nobody_can_make",
    EventReason.CRDS_OUTDATED: "tests/cluster/test_skew.py::test_a_field_that_the_server_does_not_keep",
}
"""Reasons that no pass decides: the test that asserts on each, as "tests/cluster/test_x.py::test_name"."""


@cache
def said_in(story: Callable[[], None]) -> frozenset[str]:
    """Told once, however many reasons it provokes."""
    said: set[str] = set()

    def hear(snapshot: words.Snapshot, plan: words.Plan) -> None:
        said.update(words.reasons_in(snapshot, plan))

    world.LISTENERS.append(hear)
    try:
        story()
    finally:
        world.LISTENERS.remove(hear)
    return frozenset(said)


@pytest.mark.parametrize("reason", EVERY_REASON)
def test_a_documented_reason_is_said(reason: Word) -> None:
    if (elsewhere := SAID_ELSEWHERE.get(reason)) is not None:
        assert asserts_on(reason, elsewhere), f"{elsewhere} does not assert on {reason.value}"
        return
    assert reason in STORIES, f"write a story that provokes {reason.value}, or take it out of its list"
    assert reason.value in said_in(STORIES[reason])


def asserts_on(reason: Word, node: str) -> bool:
    """The named test is there and names the reason."""
    file, _, name = node.partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    body = re.search(rf"def {name}\(.*?(?=\n(?:async )?def |\n@|\Z)", source, re.DOTALL)
    said = (f"Reason.{reason.name}", f'"{reason.value}"', f"/{reason.value}")
    return bool(body) and any(word in body[0] for word in said)


def test_a_story_is_of_a_reason_that_there_is() -> None:
    assert set(STORIES).isdisjoint(SAID_ELSEWHERE)
    assert {*STORIES, *SAID_ELSEWHERE} == set(EVERY_REASON)
