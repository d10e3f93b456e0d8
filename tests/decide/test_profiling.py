"""What is measured, when, and never twice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from helios_operator.api.annotations import REASSESS
from helios_operator.api.status import Condition
from helios_operator.api.timestamps import format_time
from helios_operator.api.types import ConfigMapRef, Profiling, Prompts
from helios_operator.decide import decide
from helios_operator.decide.facts.candidates import key
from helios_operator.decide.plan import DeleteJob, DeleteProfile, Plan, StartJob
from helios_operator.decide.snapshot import JobKind, JobPhase, Snapshot, TimingRow

from tests.decide.builders import LIVE, inline, selected, world
from tests.decide.test_stories import condition, second_act
from tests.decide.truth import BARE_BIG, BARE_SMALL, CODE, GENERAL, PROSE, Model, candidate
from tests.decide.world import START, World
from tests.sizes import LONG

GIVEN = "sha256:inline"


def starts(made: World) -> list[tuple[JobKind, tuple[str, ...]]]:
    return [
        (action.job.kind, tuple(sorted(c.name for c in action.job.candidates)))
        for action in made.actions
        if isinstance(action, StartJob)
    ]


def with_profiling(made: World, **changes: object) -> World:
    profiling = replace(made.spec.profiling, **changes)  # type: ignore[arg-type]
    made.spec = replace(made.spec, profiling=profiling)
    made.deployment = replace(made.deployment, spec=made.spec)
    return made


def test_one_quality_job_measures_all_bundles_of_a_backbone() -> None:
    made = world(inline(), prose=PROSE, code=CODE, general=GENERAL)
    made.run(30)
    everyone = ("code", "general", "prose")
    assert starts(made) == [
        (JobKind.INSPECT, everyone),
        (JobKind.TIMING, everyone),
        (JobKind.QUALITY, everyone),
    ]


def test_at_most_max_parallelism_jobs_run_and_the_cheapest_go_first() -> None:
    most: list[int] = []
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    made.watch.append(lambda w, s, p: most.append(sum(job.phase is JobPhase.RUNNING for job in s.jobs)))
    made.run(60)
    assert max(most) == 1
    order = [names for kind, names in starts(made) if kind is not JobKind.INSPECT]
    assert order == [("small",), ("big",), ("small",), ("big",)]


def test_more_parallelism_is_used() -> None:
    most: list[int] = []
    made = with_profiling(world(inline(), 85, big=BARE_BIG, small=BARE_SMALL), max_parallelism=2)
    made.watch.append(lambda w, s, p: most.append(sum(job.phase is JobPhase.RUNNING for job in s.jobs)))
    made.run(60)
    assert max(most) == 2


def test_a_second_run_measures_nothing() -> None:
    first = world(inline(), 85, big=BARE_BIG, general=GENERAL, small=BARE_SMALL)
    first.run(60)
    second = world(inline(), 85, big=BARE_BIG, general=GENERAL, small=BARE_SMALL)
    second.rows = dict(first.rows)
    second.run(60)
    assert [kind for kind, _ in starts(second)] == [JobKind.INSPECT]
    assert second.active == first.active


def test_a_run_that_is_resumed_does_not_even_look() -> None:
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    made.run(60)
    before = len(made.actions)
    made.jobs = {}
    made.run(60)
    assert made.actions[before:] == []


def test_a_new_bundle_is_measured_on_the_same_prompts_alone() -> None:
    made = world(inline(), general=GENERAL)
    made.run(30)
    code = candidate("code", CODE)
    made.truth[(code.uri, "", code.exits or "", code.exit_layers)] = CODE
    made.edit(candidates=(*made.spec.candidates, code))
    made.run(30)
    assert starts(made)[3:] == [(JobKind.INSPECT, ("code",)), (JobKind.QUALITY, ("code",))]


def test_timing_waits_for_a_quiet_moment_but_not_for_ever() -> None:
    made = world(inline(), 85, big=BARE_BIG)
    made.run(30)
    made.watch.append(lambda w, s, p: keep_busy(w))
    small = candidate("small", BARE_SMALL)
    made.truth[(small.uri, "", "", ())] = BARE_SMALL
    made.edit(candidates=(*made.spec.candidates, small))
    made.run(10)
    assert condition(made, "Profiled") == ("False", "WaitingForIdle")
    assert (JobKind.TIMING, ("small",)) not in starts(made)
    made.run(20)
    assert (JobKind.TIMING, ("small",)) in starts(made)


def keep_busy(made: World) -> None:
    for revision in made.revisions.values():
        for pod in revision.pods:
            pod.running = 1


def test_live_prompts_are_waited_for_and_the_first_set_is_used_by_all() -> None:
    made = second_act()
    digests = {row.identity.prompts_digest for row in made.rows.values() if hasattr(row, "prompts")}
    assert len(digests) == 1


def test_a_newer_set_is_not_begun_while_one_is_half_measured() -> None:
    """Traffic goes on while Jobs run, and pods freeze one set after the other."""
    made = world(min_quality=85, big=BARE_BIG, small=BARE_SMALL)
    while made.status.reassessment.last_time is None:
        made.serve(30, "prose", each=0.02)
    measured = [names for kind, names in starts(made) if kind is JobKind.QUALITY]
    assert measured == [("small",), ("big",)]


def both(**models: Model) -> World:
    return world(replace(LIVE, inline=("prose",) * 48), **models)


def profiled_of(made: World) -> Condition:
    return next(c for c in made.status.conditions if c.type == "Profiled")


def measured_on(made: World) -> list[str]:
    return [a.job.prompts_digest for a in made.actions if isinstance(a, StartJob) and a.job.prompts_digest]


def test_given_prompts_beside_live_ones_are_for_the_first_choice_alone() -> None:
    """It is made without traffic, and then the first live set counts, and nothing else."""
    made = both(general=GENERAL)
    made.run(60)
    assert made.active is not None
    assert made.active[1] < GENERAL.backbone.layers
    assert measured_on(made) == [GIVEN]
    profiled = profiled_of(made)
    assert profiled.reason == "AllCandidatesCurrent"
    assert "on the given prompts, until live ones are collected: the first 32 of 8 tokens" in profiled.message
    made.serve(64, "prose")
    made.run(30)
    first, live = measured_on(made)
    assert (first == GIVEN, live == GIVEN) == (True, False)
    assert profiled_of(made).message == "1 of 1 profiles current"
    made.serve(64, "prose")
    assert measured_on(made) == [GIVEN, live]


@pytest.mark.long
def test_without_its_pods_a_live_set_is_not_followed_by_given_prompts() -> None:
    """What is new is measured on live prompts, though it has to wait for them: ten minutes, or an hour in
    `make test-long`."""
    made = both(general=GENERAL)
    made.run(60)
    made.serve(64, "prose")
    made.run(30)
    for revision in made.revisions.values():
        for pod in revision.pods:
            pod.frozen, pod.ring = None, []
    before = len(measured_on(made))
    made.truth[key(candidate("prose", PROSE))] = PROSE
    made.edit(candidates=(*made.spec.candidates, candidate("prose", PROSE)))
    made.run(60 * (60 if LONG else 10))
    assert GIVEN not in measured_on(made)[before:]
    made.serve(64, "prose")
    made.run(30)
    assert measured_on(made)[before:]
    assert GIVEN not in measured_on(made)[before:]


def test_without_its_config_map_the_first_choice_waits_for_live_prompts() -> None:
    prompts = replace(LIVE, config_map_ref=ConfigMapRef("texts", "whales"))
    made = with_profiling(world(general=GENERAL), prompts=prompts)
    made.run(60)
    profiled = profiled_of(made)
    assert profiled.reason == "WaitingForPrompts"
    assert "ConfigMap texts does not exist, or holds no prompt under whales" in profiled.message


def test_finished_jobs_are_deleted_after_their_time() -> None:
    made = with_profiling(world(inline(), general=GENERAL), ttl_seconds_after_finished=30)
    made.run(60)
    assert made.jobs == {}
    assert sum(isinstance(action, DeleteJob) for action in made.actions) == 3
    assert made.active == ("general", 24)


def test_old_rows_beyond_the_history_limit_go_and_those_in_use_stay() -> None:
    made = with_profiling(world(min_quality=85, big=BARE_BIG, small=BARE_SMALL), history_limit=2)
    selected(made)
    for domain in ("prose", "code", "prose", "code", "prose"):
        made.serve(200, domain)
    assert any(isinstance(action, DeleteProfile) for action in made.actions)
    rows = [row for row in made.rows.values() if hasattr(row, "prompts")]
    for uri in {row.identity.model_uri for row in rows}:
        assert 1 <= len([row for row in rows if row.identity.model_uri == uri]) <= 4
    assert made.status.active.quality in made.rows


def test_nothing_is_timed_while_pods_start() -> None:
    """A model that is read takes the processors that are to be timed."""
    made = world(inline(), 85, big=BARE_BIG, small=BARE_SMALL)
    made.start_seconds = 20

    def none_beside_it(w: World, snapshot: Snapshot, plan: Plan) -> None:
        timing = [job for job in snapshot.jobs if job.spec.kind is JobKind.TIMING]
        running = any(job.phase is JobPhase.RUNNING for job in timing)
        assert not running or all(pod.ready for r in snapshot.revisions if not r.draining for pod in r.pods)

    made.watch.append(none_beside_it)
    made.run(40)
    assert len([row for row in made.rows.values() if isinstance(row, TimingRow)]) == 2


def test_pods_that_hang_do_not_keep_timing_waiting_for_ever() -> None:
    made = world(inline(), 85, big=BARE_BIG)
    made.start_seconds = 1000
    made.run(150)
    assert [kind for kind, _ in starts(made)][:2] == [JobKind.INSPECT, JobKind.TIMING]


def test_progress_is_said() -> None:
    made = world(general=GENERAL)
    said: list[str] = []
    made.watch.append(
        lambda w, s, p: said.extend(c.reason for c in p.status.conditions if c.type == "Profiled")
    )
    selected(made)
    assert list(dict.fromkeys(said)) == [
        "ProfilingRunning",
        "WaitingForIdle",
        "WaitingForPrompts",
        "AllCandidatesCurrent",
    ]
    assert isinstance(made.spec.profiling, Profiling)


def test_what_runs_says_how_far_it_is() -> None:
    """Beside what waits for it."""
    made = world(inline(), big=BARE_BIG, small=BARE_SMALL)
    made.job_seconds = 60
    made.run(140)
    snapshot = made.snapshot()
    (running,) = (job for job in snapshot.jobs if job.phase is JobPhase.RUNNING)
    told = replace(running, progress="40 %, about 30 s left")
    jobs = tuple(told if job is running else job for job in snapshot.jobs)
    plan = decide(replace(snapshot, jobs=jobs), made.now)
    (said,) = (c.message for c in plan.status.conditions if c.type == "Profiled")
    assert f"{running.spec.name} (40 %, about 30 s left); " in said
    assert "waits: maxParallelism Jobs are running" in said


def test_a_config_map_without_prompts_is_named_beside_what_is_measured() -> None:
    prompts = Prompts(config_map_ref=ConfigMapRef("texts", "whales"))
    made = with_profiling(world(general=GENERAL), prompts=prompts)
    made.run(2)
    profiled = next(c for c in made.status.conditions if c.type == "Profiled")
    assert profiled.reason == "NoPrompts"
    assert "ConfigMap texts does not exist, or holds no prompt under whales; inspect i-" in profiled.message


def test_a_job_that_vanishes_is_started_again_with_patience() -> None:
    """Twice as long after each start, at most ten minutes, and at once when a person asks."""
    made = world(inline(), big=BARE_BIG)
    began: list[float] = []

    def watch(made: World, _: Snapshot, plan: Plan) -> None:
        made.jobs.clear()
        began.extend(
            (made.now - START).total_seconds() for action in plan.actions if isinstance(action, StartJob)
        )

    made.watch.append(watch)
    made.run(4000, every=1)
    pauses = [round(after - before) for before, after in itertools.pairwise(began)]
    assert pauses[:6] == pytest.approx([10, 20, 40, 80, 160, 320], abs=2)
    assert set(pauses[6:]) <= {600, 601}
    (known,) = made.status.jobs
    assert (known.attempts, known.start_time) == (len(began), START + timedelta(seconds=began[-1]))
    before = len(began)
    made.deployment = replace(made.deployment, annotations={REASSESS: format_time(made.now)})
    made.run(3)
    assert len(began) == before + 1


def test_what_is_measured_is_remembered_no_longer() -> None:
    made = selected(world(inline(), 80, big=BARE_BIG))
    assert made.status.jobs == ()


def test_a_job_that_only_lingers_goes_once_its_row_stands() -> None:
    made = world(inline(), big=BARE_BIG)
    made.run(20)
    for name, (job, ends) in list(made.jobs.items()):
        made.jobs[name] = (replace(job, lingers=True), ends)
    assert made.jobs
    made.run(3)
    assert made.jobs == {}


def test_a_job_that_only_lingers_still_holds_the_next_look_at_a_fault_back() -> None:
    """The container ends a moment before its Job does: that moment is no reason to look again."""
    made = world(inline(), big=BARE_BIG, gone=replace(BARE_SMALL, problem="no directory /models/gone"))
    made.run(20)
    (name,) = [name for name, (job, _) in made.jobs.items() if job.problems]
    job, ends = made.jobs[name]
    made.jobs[name] = (replace(job, lingers=True), ends)
    made.run(3)
    assert name in made.jobs
