"""Precision beside depth: which are measured, in how many Jobs, which one serves, and what nobody chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.serves import PRECISIONS, Precision
from helios_operator.api.types import Bounds, Candidate
from helios_operator.decide.plan import StartJob
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.decide.builders import inline, world
from tests.decide.test_stories import condition
from tests.decide.truth import BARE_SMALL, GENERAL
from tests.decide.world import HARDWARE, World

AUTO, INT8, BOTH = Precision(), Precision("int8"), Precision("int8", "int8")
FOUR = PRECISIONS[:4]


def holding(made: World, weights: str = "", keys: str = "", **named: tuple[str, str]) -> World:
    """Every candidate may be held so ("": as the operator has it), or those that are named."""

    def held(candidate: Candidate) -> Candidate:
        given = named.get(candidate.name, (weights, keys))
        return replace(
            candidate, weight_dtypes=tuple(given[0].split()), kv_cache_dtypes=tuple(given[1].split())
        )

    made.spec = replace(made.spec, candidates=tuple(map(held, made.spec.candidates)))
    made.deployment = replace(made.deployment, spec=made.spec)
    return made


def started(made: World, kind: JobKind) -> list[JobSpec]:
    return [a.job for a in made.actions if isinstance(a, StartJob) and a.job.kind is kind]


def serving(made: World) -> tuple[int, str]:
    active = made.status.active
    return (active.layer_budget, str(active.precision))


def left_out(made: World) -> str:
    (profiled,) = (c for c in made.status.conditions if c.type == "Profiled")
    return profiled.message.partition("left out: ")[2]


# -- what is measured ----------------------------------------------------------------------------------------


def test_one_job_times_what_the_operator_weighs_by_default_and_one_scores_it() -> None:
    made = holding(world(inline(), general=GENERAL))
    made.run(30)
    (timing,), (quality,) = started(made, JobKind.TIMING), started(made, JobKind.QUALITY)
    assert timing.precisions == quality.precisions == FOUR
    assert len(made.rows) == len(timing.rows) + len(quality.rows) == 8
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")
    assert left_out(made) == ""
    (said,) = (a.why.message for a in made.actions if isinstance(a, StartJob) and a.job is timing)
    assert said == "Timing of general in auto/auto, int8/auto, int8/int8, auto/int8"


def told(made: World) -> list[tuple[str, str]]:
    return [(type(action).__name__, action.why.message) for action in made.actions]


def test_the_order_of_the_lists_does_not_matter() -> None:
    there = holding(world(inline(), general=GENERAL), "auto int8 int4", "int8 auto")
    back = holding(world(inline(), general=GENERAL), "int4 int8 auto", "auto int8")
    there.run(60)
    back.run(60)
    assert [job.precisions for job in started(there, JobKind.TIMING)] == [FOUR, PRECISIONS[4:6]]
    assert told(there) == told(back)
    assert there.status == back.status


def test_more_than_a_result_holds_are_measured_one_after_another_and_none_twice() -> None:
    made = holding(world(inline(), general=GENERAL), "auto int8 int4", "auto int8")
    made.spec = replace(made.spec, profiling=replace(made.spec.profiling, max_parallelism=2))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(60)
    timed = [p for job in started(made, JobKind.TIMING) for p in job.precisions]
    scored = [job.precisions for job in started(made, JobKind.QUALITY)]
    assert sorted(timed) == sorted(PRECISIONS)
    assert sorted(p for each in scored for p in each if p != AUTO) == sorted(PRECISIONS[1:])
    assert all(AUTO in each for each in scored)
    assert len(made.rows) == 12


def test_the_reference_is_scored_as_seldom_as_results_allow() -> None:
    """It is scored again in each Job: agreement is with its tokens, which no result holds."""
    made = holding(world(inline(), general=GENERAL), "auto int8 int4", "auto int8")
    made.run(60)
    assert [job.precisions for job in started(made, JobKind.TIMING)] == [FOUR, PRECISIONS[4:6]]
    assert [job.precisions for job in started(made, JobKind.QUALITY)] == [FOUR, (AUTO, *PRECISIONS[4:6])]


def test_of_several_jobs_one_that_fails_is_done_again_one_by_one_and_the_other_is_not() -> None:
    made = holding(world(inline(), general=GENERAL), "auto int8 int4", "auto int8")
    made.fails = lambda spec: "it broke" if INT8 in spec.precisions and spec.kind is JobKind.QUALITY else ""
    made.run(400)
    scored = [job.precisions for job in started(made, JobKind.QUALITY)]
    assert scored.count((AUTO, *PRECISIONS[4:6])) == 1
    assert (AUTO, INT8) in scored
    assert {row.identity.precision for row in made.rows.values() if row.name.startswith("q")} >= {
        *(p for p in PRECISIONS if p != INT8)
    }
    assert not any({INT8, *PRECISIONS[4:6]} & set(p) == {INT8, *PRECISIONS[4:6]} for p in scored)


def test_at_most_six_of_a_backbone_and_the_rest_is_named() -> None:
    made = holding(world(inline(), general=GENERAL), "auto int8 int4", "auto int8 fp8")
    made.hardware = replace(HARDWARE, accelerator="H100", accelerators=1)
    made.run(60)
    assert {p for job in started(made, JobKind.TIMING) for p in job.precisions} == set(PRECISIONS)
    assert left_out(made) == (
        "general in auto/fp8 (more than 6 of a backbone), int8/fp8 (more than 6 of a backbone), "
        "int4/fp8 (more than 6 of a backbone)"
    )


def test_keys_in_fp8_are_for_accelerators_and_for_who_asks() -> None:
    plain = holding(world(inline(), general=GENERAL))
    plain.hardware = replace(HARDWARE, accelerator="H100", accelerators=1)
    plain.run(30)
    assert started(plain, JobKind.TIMING)[0].precisions == FOUR
    asked = holding(world(inline(), general=GENERAL), "auto", "fp8")
    asked.hardware = plain.hardware
    asked.run(30)
    assert asked.status.active.precision == Precision("auto", "fp8")
    assert {row.identity.precision for row in asked.rows.values()} == {AUTO, Precision("auto", "fp8")}


def test_on_a_cpu_fp8_is_left_out_by_name_and_what_has_nothing_else_is_turned_away() -> None:
    why = "kvCacheDtypes: fp8 needs an accelerator that has it, pods run on a CPU"
    made = holding(
        world(inline(), general=GENERAL, bare=BARE_SMALL), general=("auto", "auto fp8"), bare=("", "fp8")
    )
    made.run(40)
    assert serving(made)[1] == "auto/auto"
    assert left_out(made) == f"general in auto/fp8 ({why})"
    (bare,) = (c for c in made.status.candidates if c.name == "bare")
    assert (bare.state, bare.feasible) == ("Rejected", False)
    assert bare.message == (f"none of its precisions can be served: auto/fp8 ({why}), int8/fp8 ({why})")


def a_precision_that_no_cpu_has() -> None:
    """For `test_reasons`."""
    made = holding(world(inline(), general=GENERAL), "auto", "fp8")
    made.run(5)
    assert made.status.active is None
    assert "fp8 needs an accelerator" in condition_message(made, "Ready")


def condition_message(made: World, kind: str) -> str:
    return next(c.message for c in made.status.conditions if c.type == kind)


def test_alone_it_serves_nothing_and_says_so() -> None:
    a_precision_that_no_cpu_has()


def test_what_is_known_is_not_measured_again() -> None:
    first = holding(world(inline(), general=GENERAL), "auto", "auto")
    first.run(30)
    second = holding(world(inline(), general=GENERAL))
    second.rows = dict(first.rows)
    second.run(30)
    (timing,), (quality,) = started(second, JobKind.TIMING), started(second, JobKind.QUALITY)
    assert timing.precisions == FOUR[1:]
    assert quality.precisions == FOUR
    assert not set(quality.rows) & set(first.rows)


def test_a_job_that_fails_as_one_is_done_one_by_one_and_only_the_culprit_is_without_a_row() -> None:
    made = holding(world(inline(), 97, general=GENERAL))
    made.fails = lambda job: "no such kernel" if BOTH in job.precisions else ""
    made.run(200, every=2)
    assert serving(made) == (30, "int8/auto")
    assert left_out(made) == "general in int8/int8 (no such kernel)"
    phases = {str(row.identity.precision): row.phase.value for row in made.rows.values() if "t-" in row.name}
    assert phases == {
        "auto/auto": "Complete",
        "int8/auto": "Complete",
        "int8/int8": "Failed",
        "auto/int8": "Complete",
    }
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")


def test_what_a_job_leaves_out_is_not_asked_for_again() -> None:
    made = holding(world(inline(), 97, general=GENERAL))
    made.times = lambda precision: precision.kv_cache_dtype == "auto"
    made.run(100, every=2)
    assert len(started(made, JobKind.TIMING)) == 1
    assert serving(made) == (30, "int8/auto")
    assert "int8/int8 (its Job left it out: it does not fit the memory" in left_out(made)


@pytest.mark.parametrize("kind", [JobKind.TIMING, JobKind.QUALITY])
def test_what_a_job_leaves_out_is_named_with_the_jobs_own_reason(kind: JobKind) -> None:
    made = holding(world(inline(), 97, general=GENERAL))
    why = "weight_dtype: int4 cannot hold a weight of 1e+06"
    made.unheld = lambda of, precision: why if of is kind and precision == BOTH else ""
    made.run(100, every=2)
    assert left_out(made) == f"general in int8/int8 (its Job left it out: {why})"
    assert serving(made) == (30, "int8/auto")
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")


def test_weights_that_are_known_not_to_fit_are_not_timed() -> None:
    """The backbone takes 210 MiB as published, beside a process of 350."""
    made = holding(world(inline(), 97, general=GENERAL), "auto int8", "auto int8")
    made.spec = replace(made.spec, limits=replace(made.spec.limits, memory_mib=560))
    made.deployment = replace(made.deployment, spec=made.spec)
    published = holding(world(inline(), 97, general=GENERAL), "auto", "auto")
    published.run(30)
    made.rows = {name: row for name, row in published.rows.items() if name.startswith("t-")}
    made.run(60)
    assert {p for job in started(made, JobKind.TIMING) for p in job.precisions} == {INT8, BOTH}
    assert "auto/int8 (its weights need 628 MiB at 24 layers, 560 MiB given)" in left_out(made)
    assert serving(made) == (30, "int8/int8")


# -- what serves ---------------------------------------------------------------------------------------------


def test_quality_asked_for_decides_what_is_given_up_first() -> None:
    """The SLO allows precision before depth, and both where it allows more."""
    for asked, chosen in ((100, (30, "auto/auto")), (97, (30, "int8/int8")), (90, (24, "int8/int8"))):
        made = holding(world(inline(), asked, general=GENERAL))
        made.run(30)
        assert serving(made) == chosen
        assert "Select" in made.kinds or asked == 100


def test_agreement_is_with_full_depth_as_published() -> None:
    made = holding(world(inline(), None, general=GENERAL), "int4", "auto")
    made.spec = replace(made.spec, slo=replace(made.spec.slo, min_agreement_percent=97))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(40)
    assert made.status.reassessment.reason == "NoFeasibleCandidate"
    assert "agreement" in made.status.reassessment.message


def test_a_spec_without_auto_is_scored_beside_it_all_the_same() -> None:
    made = holding(world(inline(), 97, general=GENERAL), "int8", "int8")
    made.run(30)
    assert [job.precisions for job in started(made, JobKind.TIMING)] == [(BOTH,)]
    assert [job.precisions for job in started(made, JobKind.QUALITY)] == [(AUTO, BOTH)]
    assert serving(made) == (30, "int8/int8")
    assert all(r.limits.precision == BOTH for r in made.revisions.values())


# -- accelerators --------------------------------------------------------------------------------------------


def test_what_no_cpu_has_is_scored_on_an_accelerator_and_holds_nothing_up_where_serving_has_it() -> None:
    made = holding(world(min_quality=97, general=GENERAL), "auto", "auto int8 fp8")
    made.hardware = replace(HARDWARE, accelerator="H100", accelerators=1)
    made.cards = 1
    made.run(60)
    made.serve(60, "prose")
    made.run(30)
    scored = started(made, JobKind.QUALITY)
    assert [(job.precisions, job.on_cpu) for job in scored] == [((AUTO, Precision("auto", "int8")), True)]
    assert serving(made) == (30, "auto/int8")
    assert condition(made, "Profiled") == ("False", "NoCapacityForProfiling")
    made.cards = 2
    made.run(30)
    (last,) = started(made, JobKind.QUALITY)[1:]
    assert (last.precisions, last.on_cpu) == ((AUTO, Precision("auto", "fp8")), False)
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")


# -- what failed ---------------------------------------------------------------------------------------------


def test_what_fails_again_and_again_is_tried_once_an_hour_and_leaves_the_table_complete_between() -> None:
    made = holding(world(inline(), 97, general=GENERAL))
    made.fails = lambda job: "no such kernel" if BOTH in job.precisions else ""
    made.run(200, every=2)
    before = len(started(made, JobKind.TIMING))
    made.run(3 * 3600, every=20)
    again = started(made, JobKind.TIMING)[before:]
    assert {job.precisions for job in again} == {(BOTH,)}
    assert len(again) <= 3 * (1 + made.spec.profiling.backoff_limit)
    made.run(600, every=20)
    assert condition(made, "Profiled") == ("True", "AllCandidatesCurrent")


def test_what_a_job_leaves_out_again_and_again_is_tried_once_an_hour_however_long_jobs_are_kept() -> None:
    for kept in (0, 24 * 3600):
        made = holding(world(inline(), 97, general=GENERAL))
        made.edit(profiling=replace(made.spec.profiling, ttl_seconds_after_finished=kept))
        made.scores = lambda precision: precision != BOTH
        made.run(100, every=2)
        before = len(started(made, JobKind.QUALITY))
        made.run(3 * 3600, every=20)
        assert 2 <= len(started(made, JobKind.QUALITY)) - before <= 3
        assert condition(made, "Profiled")[1] in ("AllCandidatesCurrent", "ProfileFailed")


def test_memory_that_is_too_small_for_one_candidate_of_a_backbone_may_do_for_another() -> None:
    """Both are one model under two names; one of them is only to be served in full."""
    for names in (("deep", "shallow"), ("shallow", "deep")):
        made = world(inline(), 60, **dict.fromkeys(names, GENERAL))
        bounds = {"deep": Bounds(min=30), "shallow": Bounds(max=24)}
        made.edit(
            candidates=tuple(replace(c, layer_budget=bounds[c.name]) for c in made.spec.candidates),
            limits=replace(made.spec.limits, memory_mib=640),
        )
        holding(made, "auto int8", "auto int8")
        published = holding(world(inline(), 60, general=GENERAL), "auto", "auto")
        published.run(30)
        made.rows = {name: row for name, row in published.rows.items() if name.startswith("t-")}
        made.run(60)
        assert {p for job in started(made, JobKind.TIMING) for p in job.precisions} == set(FOUR[1:])
