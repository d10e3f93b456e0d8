"""A bound of the context: what each candidate serves, and what is measured anew for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.results import Resolved
from helios_operator.decide.facts.candidates import gather, timing_identity
from helios_operator.decide.plan import StartJob
from helios_operator.decide.policy import DEFAULT
from helios_operator.decide.snapshot import JobKind, TimingRow

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.truth import GENERAL
from tests.decide.world import World


def bounded(made: World, tokens: int | None) -> World:
    made.edit(limits=replace(made.spec.limits, max_context_tokens=tokens))
    return made


def serving_world() -> World:
    return selected(world(inline(), general=GENERAL))


def resolved(made: World) -> Resolved:
    (candidate,) = made.status.candidates
    assert candidate.resolved
    return candidate.resolved


def timings(made: World) -> list[TimingRow]:
    return [row for row in made.rows.values() if isinstance(row, TimingRow)]


def jobs(made: World, kind: JobKind) -> int:
    return sum(isinstance(action, StartJob) and action.job.kind is kind for action in made.actions)


def test_what_serves_is_told_and_timed_and_what_was_found_is_remembered() -> None:
    made = serving_world()
    assert resolved(made) == GENERAL.resolved()
    bounded(made, 512).run(60)
    assert (resolved(made).max_context_tokens, resolved(made).model_context_tokens) == (512, 2048)
    assert [row.identity.max_context_tokens for row in timings(made)] == [0, 512]
    assert condition(made, "Ready")[0] == "True"
    bounded(made, 256).run(60)
    assert (resolved(made).max_context_tokens, resolved(made).model_context_tokens) == (256, 2048)
    bounded(made, None).run(60)
    assert resolved(made).max_context_tokens == 2048
    assert (jobs(made, JobKind.INSPECT), jobs(made, JobKind.TIMING)) == (1, 3)
    assert made.lost == 0


@pytest.mark.parametrize("tokens", [2048, 2049, 1_000_000])
def test_a_bound_that_binds_nothing_measures_nothing(tokens: int) -> None:
    made = serving_world()
    before = dict(made.rows)
    bounded(made, tokens).run(30)
    assert resolved(made) == GENERAL.resolved()
    assert made.rows.keys() == before.keys()


@pytest.mark.parametrize(
    ("asked", "served", "timed"), [(None, 2048, 0), (4096, 4096, 4096), (99999, 8192, 8192)]
)
def test_linear_rope_raises_it_as_far_as_it_says(asked: int | None, served: int, timed: int) -> None:
    made = serving_world()
    stretches = replace(GENERAL.resolved(), longest_context_tokens=8192)
    (status,) = made.status.candidates
    made.deployment = replace(
        made.deployment, status=replace(made.status, candidates=(replace(status, resolved=stretches),))
    )
    for name, (job, since) in list(made.jobs.items()):
        if job.spec.kind is JobKind.INSPECT:
            made.jobs[name] = (replace(job, resolved={"general": stretches}), since)
    bounded(made, asked)
    (contender,) = gather(made.snapshot(), DEFAULT)
    assert contender.resolved
    assert contender.resolved.max_context_tokens == served
    assert timing_identity((contender,), made.snapshot()).max_context_tokens == timed
