"""Tasks Jobs where rows are shared, a model has two names, or serving has the accelerator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.serves import REFERENCE, Precision
from helios_operator.api.rows import RowPhase
from helios_operator.api.types import Bounds
from helios_operator.decide.facts.precisions import WITH_FP8
from helios_operator.decide.plan import DeleteProfile
from helios_operator.decide.snapshot import JobKind

from tests.decide.builders import inline, world
from tests.decide.test_precisions import holding
from tests.decide.test_tasks import FULL, ask, asked, at_full_depth, fall, jobs, probed
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
