"""Tasks Jobs where rows are shared, a model has two names, or serving has the accelerator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.serves import REFERENCE, Precision
from helios_contract.telemetry import TaskCounts
from helios_operator.api.conditions import ConditionType
from helios_operator.api.rows import RowPhase
from helios_operator.api.types import Bounds
from helios_operator.decide.facts.precisions import WITH_FP8
from helios_operator.decide.plan import DeleteProfile
from helios_operator.decide.snapshot import JobKind

from tests.decide.builders import inline, world
from tests.decide.test_precisions import holding
from tests.decide.test_tasks import FULL, ask, asked, at_full_depth, condition, fall, jobs, probed
from tests.decide.truth import GENERAL
from tests.decide.world import HARDWARE


def test_what_fell_goes_for_every_deployment_that_uses_the_row() -> None:
    """One that stayed for another's sake would be believed again when the alarm is over."""
    made = probed(asked())
    made.run(60)
    made.serve(40, "prose")
    fall(made)
    made.run(5)
    gone = [action for action in made.actions if isinstance(action, DeleteProfile)]
    assert gone
    assert all(action.for_all for action in gone)


def test_a_job_is_given_a_candidate_under_every_name_that_its_options_say() -> None:
    made = world(inline(), shallow=GENERAL, deep=GENERAL)
    shallow, deep = made.spec.candidates
    made.edit(
        candidates=(
            replace(shallow, layer_budget=Bounds(max=24)),
            replace(deep, layer_budget=Bounds(min=27)),
        )
    )
    ask(made, passes=at_full_depth)
    made.run(60)
    assert jobs(made)
    for job in jobs(made):
        assert {option.candidate for option in job.options} <= {c.name for c in job.candidates}
    assert made.active is not None
    assert made.active[1] == FULL


@pytest.mark.parametrize("is_scored", [True, False])
def test_what_no_cpu_has_is_asked_alone_and_holds_nothing_up_where_serving_has_the_accelerator(
    is_scored: bool,
) -> None:
    measured = holding(world(inline(), 97, general=GENERAL), "auto", "auto int8 fp8")
    made = holding(ask(world(inline(), 97, general=GENERAL)), "auto", "auto int8 fp8")
    measured.hardware = made.hardware = replace(HARDWARE, accelerator="H100", accelerators=1)
    if is_scored:
        measured.run(60)
    made.rows, made.cards = dict(measured.rows), 1
    made.run(120)
    assert jobs(made)
    assert all(not {o.precision for o in job.options} & set(WITH_FP8) for job in jobs(made))
    assert made.status.active.precision == Precision("auto", "int8")


def test_a_precision_that_cannot_be_asked_is_named_and_another_is_chosen() -> None:
    made = asked()
    holding(made)
    made.run(100, every=2)
    best = made.status.active.precision
    made = asked()
    holding(made)
    made.unheld = lambda kind, precision: (
        "memory-mib: 9 MiB" if (kind, precision) == (JobKind.TASKS, best) else ""
    )
    made.run(100, every=2)
    assert made.status.active.precision not in (best, REFERENCE)
    failed = [row for row in made.rows.values() if row.phase is RowPhase.FAILED]
    assert {row.identity.precision for row in failed} == {best}
    assert {row.message for row in failed} == {"its Job left it out: memory-mib: 9 MiB"}


def test_what_would_have_been_better_is_named_before_what_is_only_behind() -> None:
    """Of full depth there are four that pass; that the shallow ones break the tasks is the news."""
    made = asked(passes=at_full_depth)
    holding(made)
    made.run(150, every=2)
    assert made.active == ("general", FULL)
    chosen, first, *_ = made.status.reassessment.message.split("; ")
    assert chosen.startswith("general at 30 layers")
    assert first.startswith("general at 24")
    assert "tasks 0.0 % (at least 0.0) < 80" in first


def test_who_is_asked_and_what_is_passed_is_said() -> None:
    made = asked(passes=at_full_depth)
    made.run(60)
    said = [action.why.message for action in made.actions]
    assert "Tasks of general: general at 30, general at 24, general at 27" in said
    assert any(
        words.startswith("Tasks profile k-") and words.endswith(": 24 layers pass 0 of 40") for words in said
    )


def test_what_the_probe_heard_stands_beside_what_the_job_found() -> None:
    made = probed(asked())
    made.run(60)
    made.serve(60, "prose")
    (pod,) = [pod for revision in made.revisions.values() for pod in revision.pods]
    pod.tasks = TaskCounts(16, 15)
    made.run(2)
    assert "tasks 100.0 % of 80 asked, 15 of 16 probed" in condition(made, ConditionType.SLO_MET)[2]
